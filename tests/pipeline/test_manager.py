"""The pass manager: what it checks before and after each pass, what it reports, and how it fails."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irshap.checks.instruments import PrintAfter, TimePasses, VerifyNumeric, VerifyTypes, watching
from irshap.errors import PassError, PipelineError, TargetError
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, Output
from irshap.ir.dims import N
from irshap.ir.types import DType, TensorType
from irshap.ops.program import Input
from irshap.pipeline.base import PASSES, PROPERTIES, Context, Pass, Semantics
from irshap.pipeline.instrument import Instrument
from irshap.pipeline.manager import PassManager, Report


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    passes, properties = dict(PASSES), dict(PROPERTIES)
    yield
    for table, old in ((PASSES, passes), (PROPERTIES, properties)):
        table.clear()
        table.update(old)  # type: ignore[arg-type]


def toy(
    label: str,
    run: Callable[[Any, Context], Any] = lambda ir, context: ir,
    **facts: Any,
) -> Pass:
    """A pass called `label` that does `run`; `facts` are its class variables."""

    def body(self: Pass, ir: Any, context: Context) -> Any:
        return run(ir, context)

    facts = {"semantics": Semantics.PRESERVES, **facts}
    facts = {k: frozenset(v) if k in ("requires", "ensures", "removes") else v for k, v in facts.items()}
    cls = type(label, (Pass,), {"__doc__": "A toy.", "name": label, "run": body, **facts})
    for name in facts.get("ensures", ()):
        PROPERTIES.setdefault(name, lambda graph: None)
    made: Pass = dataclass(frozen=True)(cls)()
    return made


def scaled(factor: float = 2.0, name: str = "y") -> Graph:
    builder = Builder()
    with builder:
        (x,) = builder.emit(Input("x"), types=(TensorType(DType.F32, (N, 3)),), names=("x",))
        with builder.at(("block/Mul",)):
            y = x * factor
        return builder.build("toy", [Output(name, y + 1.0)])


def with_extra(graph: Graph) -> Graph:
    builder = Builder()
    with builder:
        mapping = builder.graft(graph)
        outputs = [replace(o, value=mapping[o.value]) for o in graph.outputs]
        extra = Output("extra", outputs[0].value * 3.0)
        return builder.build(graph.name, [*outputs, extra], graph.properties, like=graph)


def test_properties_are_kept_by_the_manager() -> None:
    seen: list[frozenset[str]] = []

    def look(ir: Graph, context: Context) -> Graph:
        seen.append(ir.properties)
        return ir

    first = toy("t-first", look, ensures={"a", "b"})
    second = toy("t-second", look, requires={"a"}, removes={"a"}, ensures={"c"})
    last = toy("t-last", look, requires={"b", "c"})
    result = PassManager([first, second, last]).run(scaled())
    assert seen == [frozenset(), {"a", "b"}, {"b", "c"}]
    assert result.properties == {"b", "c"}


def test_a_missing_property_names_the_pass_that_gives_it() -> None:
    toy("t-giver", ensures={"sorted"})
    needy = toy("t-needy", requires={"sorted"})
    manager = PassManager([needy])
    with pytest.raises(
        PipelineError,
        match=r"pass t-needy requires 'sorted', which nothing before it gives. t-giver would give it",
    ) as caught:
        manager.run(scaled())
    assert "pipeline, pass 1 of 1" in str(caught.value)
    assert manager.run(scaled().with_properties("sorted")).properties == {"sorted"}


def test_a_property_taken_away_names_the_pass_that_took_it() -> None:
    giver = toy("t-giver", ensures={"sorted"})
    thief = toy("t-thief", removes={"sorted"})
    needy = toy("t-needy", requires={"sorted"})
    with pytest.raises(PipelineError, match="which t-thief took away"):
        PassManager([giver, thief, needy]).run(scaled())


def test_pipelines_from_a_model_are_checked_when_made() -> None:
    toy("t-giver", ensures={"sorted"})
    start = toy("t-start", takes="model")
    needy = toy("t-needy", requires={"sorted"})
    with pytest.raises(PipelineError, match="requires 'sorted'"):
        PassManager([start, needy])


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["t-plain", "t-read"], "pass t-read takes a model, and gets a graph"),
        (["t-write", "t-plain"], "pass t-plain takes a graph, and gets a model. put .*t-read.* before it"),
    ],
)
def test_the_chain_of_kinds(order: list[str], message: str) -> None:
    toys = {
        "t-plain": toy("t-plain"),
        "t-read": toy("t-read", takes="model"),
        "t-write": toy("t-write", gives="model"),
    }
    with pytest.raises(PipelineError, match=message):
        PassManager([toys[name] for name in order])


def test_input_of_the_wrong_kind() -> None:
    read, plain = toy("t-read", lambda ir, context: scaled(), takes="model"), toy("t-plain")
    with pytest.raises(PipelineError, match=r"t-read takes a model, and gets a graph. leave it out"):
        PassManager([read, plain]).run(scaled())
    with pytest.raises(PipelineError, match="t-plain takes a graph, and gets a model"):
        PassManager([plain]).run("model.onnx")


def test_a_broken_promise_is_the_passs_fault() -> None:
    liar = toy("t-liar", ensures={"tidy"})
    PROPERTIES["tidy"] = lambda graph: "it has 3 loose ends"
    with pytest.raises(
        PassError, match=r"pass t-liar \(1 of 1\) broke a promise: the graph should be 'tidy', but it"
    ):
        PassManager([liar]).run(scaled())


def test_a_property_without_a_check_is_refused() -> None:
    liar = toy("t-liar", ensures={"tidy"})
    del PROPERTIES["tidy"]
    with pytest.raises(PassError, match="property 'tidy' has no check"):
        PassManager([liar]).run(scaled())


def test_user_errors_pass_through_unchanged() -> None:
    error = TargetError("no class 12")

    def run(ir: Graph, context: Context) -> Graph:
        raise error

    with pytest.raises(TargetError) as caught:
        PassManager([toy("t-target", run)]).run(scaled())
    assert caught.value is error


def test_a_failure_says_where_and_how_to_rerun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(ir: Graph, context: Context) -> Graph:
        for node in ir.nodes:
            rewrite(node)
        return ir

    def rewrite(node: Node) -> None:
        if node.op.mnemonic == "mul":
            raise ZeroDivisionError("no such factor")

    graph = scaled()
    with pytest.raises(PassError) as caught:
        PassManager([toy("t-fine"), toy("t-breaks", run)]).run(graph)
    text = str(caught.value)
    assert caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "pass t-breaks (2 of 2) failed: ZeroDivisionError: no such factor" in text
    assert re.search(r"op +mul\n", text)
    assert re.search(r"types +\(f32\[N, 3\], f32\[\]\) -> \(f32\[N, 3\]\)", text)
    assert re.search(r"origin +block/Mul", text)
    assert re.search(r"> %\w+ = mul\(%x, .*// block/Mul", text)
    found = re.search(r"rerun +irshap opt (\S+) --passes t-breaks", text)
    assert found
    from irshap.text import parse_graph, print_graph

    dumped = Path(found[1])
    assert dumped.parent == tmp_path
    assert dumped.name.startswith("irshap-crash-")
    assert print_graph(parse_graph(dumped.read_text())) == print_graph(graph)


def test_a_failure_to_dump_does_not_hide_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError("disk full")

    monkeypatch.setattr("tempfile.mkstemp", refuse)

    def run(ir: Graph, context: Context) -> Graph:
        raise ValueError("bad luck")

    with pytest.raises(PassError, match="ValueError: bad luck") as caught:
        PassManager([toy("t-breaks", run)]).run(scaled())
    assert "rerun" not in str(caught.value)


def test_verify_types_catches_a_wrong_graph() -> None:
    def run(ir: Graph, context: Context) -> Graph:
        return replace(ir, nodes=ir.nodes[::-1])  # a use before its definition

    breaks = toy("t-breaks", run)
    PassManager([breaks]).run(scaled())
    with pytest.raises(PassError, match=r"pass t-breaks \(1 of 1\) broke a promise"):
        PassManager([breaks], [VerifyTypes()]).run(scaled())
    idle = toy("t-idle", lambda ir, context: ir)
    with pytest.raises(PassError, match=r"pass t-breaks \(3 of 4\) broke a promise"):
        PassManager([idle, idle, breaks, idle], [VerifyTypes()]).run(scaled())


def test_verify_types_checks_the_properties_of_a_program_that_stays() -> None:
    PROPERTIES["tiny"] = lambda graph: f"it has {len(graph.nodes)} nodes"
    idle = toy("t-idle", lambda ir, context: ir)
    claims = toy("t-claims", lambda ir, context: ir.with_properties("tiny"))
    with pytest.raises(PassError, match=r"pass t-claims \(2 of 2\) .*the graph isn't tiny"):
        PassManager([idle, claims], [VerifyTypes()]).run(scaled())


def test_verify_types_checks_inherited_properties() -> None:
    PROPERTIES["small"] = lambda graph: None if len(graph.nodes) < 5 else f"it has {len(graph.nodes)} nodes"
    grows = toy("t-grows", lambda ir, context: with_extra(ir))
    graph = scaled().with_properties("small")
    with pytest.raises(PassError, match="the graph isn't small: it has"):
        PassManager([grows], [VerifyTypes()]).run(graph)


def test_verify_numeric() -> None:
    same = toy("t-same", lambda ir, context: scaled())
    extends = toy("t-extends", lambda ir, context: with_extra(ir), semantics=Semantics.EXTENDS)
    wrong = toy("t-wrong", lambda ir, context: scaled(2.001))
    near = toy("t-near", lambda ir, context: scaled(2.001), semantics=Semantics.APPROXIMATES, tolerance=0.01)
    renamed = toy("t-renamed", lambda ir, context: scaled(name="z"))

    def verified(instance: Pass) -> str:
        manager = PassManager([instance], [VerifyNumeric()])
        manager.run(scaled())
        return manager.report.passes[0].verified

    assert [verified(p) for p in (same, extends, near)] == ["numeric"] * 3
    assert verified(renamed) == "types; numeric skipped: no output is in both"
    with pytest.raises(PassError, match=r"t-wrong .* broke a promise: output 'y' changed: by up to"):
        verified(wrong)


def test_verify_numeric_uses_the_given_references() -> None:
    def program(bound: bool) -> Graph:
        builder = Builder()
        with builder:
            (x,) = builder.emit(Input("x"), types=(TensorType(DType.F32, (N, 3)),), names=("x",))
            if bound:
                from irshap.ops.program import constant

                refs = constant(references[:1])
            else:
                type = TensorType(DType.F32, (1, 3))
                op = Input("x_references", "references", "x")
                (refs,) = builder.emit(op, types=(type,), names=("x_references",))
            return builder.build("toy", [Output("y", x - refs)])

    references = np.float32([[1, 2, 3]])
    bind = toy("t-bind", lambda ir, context: program(True))
    manager = PassManager([bind], [VerifyNumeric()])
    manager.run(program(False), Context(references={"x": references}))
    assert manager.report.passes[0].verified == "numeric"
    with pytest.raises(PassError, match="output 'y' changed"):
        manager.run(program(False), Context(references={"x": references + 1}))


def test_report_and_printing() -> None:
    def run(ir: Graph, context: Context) -> Graph:
        context.count("nodes added", 2)
        return with_extra(ir)

    out = io.StringIO()
    grows = toy("t-grows", run, ensures={"large"}, semantics=Semantics.EXTENDS)
    manager = PassManager([toy("t-plain"), grows], [PrintAfter({"t-grows"}, out), TimePasses(out)])
    manager.run(scaled())
    plain, grown = manager.report.passes
    assert plain.text == "t-plain"
    assert plain.nodes_before == plain.nodes_after == 4
    assert (grown.nodes_before, grown.nodes_after) == (4, 6)
    assert grown.statistics == {"nodes added": 2}
    assert grown.properties == ("large",)
    assert grown.seconds >= 0
    printed = out.getvalue()
    assert printed.count("// after") == 1
    assert "// after t-grows\ngraph @toy {large}" in printed
    assert "nodes added: 2" in printed
    assert manager.report.to_dict()["passes"][1]["text"] == "t-grows"
    assert manager.report.to_dict()["pipeline"] == "t-plain,t-grows"


def test_print_after_all_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    write = toy("t-write", lambda ir, context: "bytes", gives="model")
    PassManager([toy("t-plain"), write], [PrintAfter("all")]).run(scaled())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "// after t-plain" in captured.err
    assert "// after t-write" in captured.err


def test_instruments_and_metadata() -> None:
    calls: list[str] = []
    context = Context()

    class Listener(Instrument):
        def begins(self, passes: Sequence[Pass]) -> None:
            calls.append(f"begins {len(passes)}")

        def before(self, index: int, instance: Pass) -> None:
            calls.append(f"before {index} {instance.name}")

        def after(self, instance: Pass, given: Any, made: Any, context: Context) -> str | None:
            calls.append(f"after {instance.name} {type(made).__name__}")
            return f"heard {instance.name}"

        def ends(self, report: Report) -> None:
            calls.append(f"ends {len(report.passes)}")

    manager = PassManager([toy("t-a"), toy("t-b")], [Listener(), Instrument()])
    manager.run(scaled(), context)
    steps = ["before 0 t-a", "after t-a Graph", "before 1 t-b", "after t-b Graph"]
    assert calls == ["begins 2", *steps, "ends 2"]
    assert [run.verified for run in manager.report.passes] == ["heard t-a", "heard t-b"]
    assert context.metadata["irshap.pipeline"] == "t-a,t-b"


def test_unknown_names() -> None:
    plain = toy("t-plain")
    with pytest.raises(PipelineError, match=r"can't print after pass 't-plane'.* did you mean t-plain"):
        PassManager([plain], [PrintAfter({"t-plane"})])
    with pytest.raises(
        PipelineError, match=r"no level of verification is called 'numerics'. did you mean numeric"
    ):
        watching(verify="numerics")
    with pytest.raises(PipelineError, match="empty"):
        PassManager([])


def test_from_text_round_trips() -> None:
    toy("t-a")
    toy("t-b")
    manager = PassManager.from_text(" t-a , t-b ", [VerifyTypes()])
    assert manager.text == "t-a,t-b"
    assert PassManager.from_text(manager.text).text == manager.text


def test_a_run_resumes_with_other_passes() -> None:
    ends: list[int] = []

    class Ends(Instrument):
        def ends(self, report: Report) -> None:
            ends.append(len(report.passes))

    context = Context()
    first = PassManager([toy("t-a"), toy("t-b"), toy("t-c")], [Ends()])
    between = first.run(scaled(), context, stop=1)
    assert not ends
    _, second = first.resumed([first.passes[0], toy("t-d")], between, context)
    assert [run.text for run in second.report.passes] == ["t-a", "t-d"]
    assert second.report.pipeline == context.metadata["irshap.pipeline"] == "t-a,t-d"
    assert ends == [2]


def test_too_little_memory_is_no_fault_of_a_pass() -> None:
    def fails(ir: Any, context: Context) -> Any:
        raise MemoryError("Unable to allocate 4.00 GiB")

    with pytest.raises(MemoryError, match="GiB"):
        PassManager([toy("t-large", fails)]).run(scaled())
