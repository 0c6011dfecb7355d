"""The command line: what each command prints and writes, and how each kind of bad input ends."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from places import FIXTURES
from shells import Shell

import irshap
from irshap import demo
from irshap.cli import main
from irshap.cli.progress import PassProgress
from irshap.passes.canonicalize import Canonicalize
from irshap.passes.dce import DeadCodeElimination
from irshap.pipeline.base import PASSES
from irshap.pipeline.named import PIPELINES
from irshap.pipeline.text import pass_text

BODY = """
    w = Constant <value = float[3,2] {1, -2, 3, 0.5, 2, 1}> ()
    h = MatMul (x, w)
    y = Relu (h)
"""
ROWS = np.float32([[1, 2, 3], [-1, 0, 2]])


def toy(body: str = BODY, inputs: str = "float[N,3] x") -> onnx.ModelProto:
    head = f'<ir_version: 8, opset_import: ["" : 17]> toy ({inputs}) => (float[N,2] y)'
    return onnx.parser.parse_model(f"{head} {{ {body} }}")


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """In a folder with a model, references and samples."""
    onnx.save(toy(), "toy.onnx")
    np.save("refs.npy", ROWS)
    np.save("x.npy", ROWS * 2)
    return shell


COMPILE = ("compile", "toy.onnx", "--references", "refs.npy", "--output", "out.onnx")


def test_help_lists_the_commands(shell: Shell) -> None:
    out = shell.ok("--help")
    for command in ("compile", "run", "print", "opt", "passes", "ops", "demo"):
        assert f"\n  {command} " in out
        assert "Usage: irshap" in shell.ok(command, "--help")
    assert irshap.__version__ in shell.ok("--version")


def test_compile_and_run(shell: Shell) -> None:
    out = shell.ok(*COMPILE, "--target", "1")
    assert "out.onnx: " in out
    assert "  output   x_attributions : f32[N, 3]" in out
    assert "against  2 references" in out
    assert 'target{target="1"}' in out
    table = shell.ok("run", "out.onnx", "x.npy", "--output", "result.npz")
    assert "completeness error" in table
    assert "2 samples in" in table
    saved = np.load(shell.folder / "result.npz")
    assert set(saved.files) == {"y", "x_attributions", "base_values", "target_index"}
    expected = irshap.compile("toy.onnx", ROWS, target=1).explainer()(ROWS * 2)
    np.testing.assert_array_equal(saved["x_attributions"], expected.values)
    rows = shell.json("run", "out.onnx", "x.npy")["rows"]
    assert [r["sample"] for r in rows] == [0, 1]
    assert [r["target"] for r in rows] == [1, 1]
    for r in rows:
        total = r["base_value"] + r["sum_of_attributions"]
        assert r["prediction"] == pytest.approx(total + r["completeness_error"], abs=1e-5)


def test_a_data_file_counts_only_where_the_model_is_in_it(shell: Shell) -> None:
    """What an earlier output left beside a file of the same name is none of it."""
    command = ("compile", str(demo.model_path()), "-r", str(demo.references_path()), "-o", "d.onnx")
    apart = shell.json(*command, "--external-data")["bytes"]
    (data,) = Path().glob("d.onnx.*.data")
    sizes = [p.stat().st_size for p in (Path("d.onnx"), data)]
    assert apart == sum(sizes) and min(sizes) > 10_000
    np.save("x.npy", demo.digits()[0][:2])
    assert "d.onnx, 2.4 MiB" in shell.ok("report", "d.onnx", "x.npy")
    data.rename("d.onnx.data")  # as earlier versions called it: nobody knows whose it is
    small = [*command, "--strategy", "recompute"]
    size = shell.json(*small)["bytes"]
    assert size == Path("d.onnx").stat().st_size < 200_000
    assert Path("d.onnx.data").stat().st_size == sizes[1]
    assert f"d.onnx, {size / 2**20:.1f} MiB" in shell.ok("report", "d.onnx", "x.npy")
    # a name of more bytes than one digit of a length says
    long = f"{'d' * 200}.onnx"
    assert shell.json(*command[:-1], long, "--external-data")["bytes"] > sizes[1]


def test_compile_reports_json(shell: Shell) -> None:
    report = shell.json(*COMPILE, "--emit", "completeness_error")
    assert report["output"] == "out.onnx"
    assert report["bytes"] == (shell.folder / "out.onnx").stat().st_size
    assert list(report["inputs"]) == ["x"]
    assert list(report["outputs"]) == [
        "y",
        "x_attributions",
        "base_values",
        "target_index",
        "completeness_error",
    ]
    assert report["attributions"] == {"x": "x_attributions"}
    assert report["passes"][0]["text"] == "lift"
    assert report["metadata"]["irshap.pipeline"] == report["pipeline"]
    assert report["seconds"] >= sum(p["seconds"] for p in report["passes"]) > 0


def test_compile_prints_passes_and_times_on_stderr(shell: Shell) -> None:
    shell(*COMPILE, "--print-after", "lift", "--time-passes", "--verify", "numeric")
    assert shell.code == 0
    assert "// after lift\ngraph @toy" in shell.err
    assert shell.err.count("// after") == 1
    assert "seconds" in shell.err
    assert "numeric skipped: pullbacks" in shell.out


def test_gradient_needs_no_references(shell: Shell) -> None:
    shell.ok("compile", "toy.onnx", "-o", "g.onnx", "--method", "gradient")
    rows = shell.json("run", "g.onnx", "x.npy")["rows"]
    assert rows[0]["base_value"] is None
    assert " - " in shell.ok("run", "g.onnx", "x.npy")


def test_several_inputs_and_classes(shell: Shell) -> None:
    fixtures = FIXTURES
    data = np.load(fixtures / "two_inputs.npz")
    for kind in ("inputs", "references"):
        np.savez(shell.folder / f"{kind}.npz", **{n: data[f"{kind}.{n}"][:3] for n in ("image", "features")})
    model = fixtures / "two_inputs.onnx"
    shell.ok("compile", model, "-r", "references.npz", "-o", "out.onnx", "--target", "top-2")
    rows = shell.json("run", "out.onnx", "inputs.npz")["rows"]
    assert [r["sample"] for r in rows] == [0, 0, 1, 1, 2, 2]
    assert "4 more rows" in shell.ok("run", "out.onnx", "inputs.npz", "--rows", "2")


def test_a_target_at_run_time(shell: Shell) -> None:
    shell.ok(*COMPILE, "--target", "input")
    rows = shell.json("run", "out.onnx", "x.npy", "--target", "1")["rows"]
    assert [r["target"] for r in rows] == [1, 1]
    assert "no value for input 'target'" in shell.refused("run", "out.onnx", "x.npy")


def test_max_error(shell: Shell) -> None:
    shell.ok(*COMPILE)
    shell.ok("run", "out.onnx", "x.npy", "--max-error", "1e-4")
    shell("run", "out.onnx", "x.npy", "--max-error", "0")
    assert shell.code in (0, 1)
    np.save(shell.folder / "nan.npy", ROWS * np.nan)
    assert "input 'x': sample 0 holds nan at [0]" in shell.refused("run", "out.onnx", "nan.npy")
    np.save(shell.folder / "large.npy", np.full_like(ROWS, 3e38))  # its layers overflow
    shell("run", "out.onnx", "large.npy", "--max-error", "1")
    assert shell.code == 1
    assert "error: 2 of 2 completeness errors exceed 1" in shell.err
    assert shell.json("run", "out.onnx", "large.npy")["rows"][0]["completeness_error"] is None


def test_a_text_that_says_what_is_not_so(shell: Shell) -> None:
    """A property that a pass would have to give is the text's own word: the user's error, not a pass's."""
    text = (
        'graph @g {adjoint}\n%x = input{name="x"} : f32[N, 2]\n%y = relu(%x) : f32[N, 2]\noutput "y" = %y\n'
    )
    Path("false.ir").write_text(text)
    for command in (("opt", "false.ir", "--passes", "dce"), ("print", "false.ir", "--passes", "dce")):
        assert "the graph isn't adjoint" in shell.refused(*command)


def test_print_and_opt_round_trip(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shell.ok("print", "toy.onnx", "--full")
    assert text.startswith("graph @toy")
    shell.ok("print", "toy.onnx", "--full", "--output", "toy.ir")
    assert (shell.folder / "toy.ir").read_text() == text
    assert shell.ok("opt", "toy.ir", "--passes", "dce") == text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert shell.ok("opt", "-", "--passes", "dce") == text


def test_passes_one_by_one_give_the_same_as_compile(shell: Shell) -> None:
    """Every intermediate program goes through text, as a crash report's rerun does."""
    shell.ok(*COMPILE)
    shell.ok("print", "toy.onnx", "--full", "--output", "step.ir")
    for each in irshap.PassManager.from_text("@default").passes[1:-1]:
        more = ("--references", "refs.npy") if each.binds_references else ()
        text = shell.ok("opt", "step.ir", "--passes", pass_text(each), "--verify", "numeric", *more)
        (shell.folder / "step.ir").write_text(text)
    shell.ok("opt", "step.ir", "--passes", "lower", "--output", "steps.onnx")
    both = [irshap.Explainer(name)(ROWS * 2) for name in ("out.onnx", "steps.onnx")]
    np.testing.assert_array_equal(both[0].values, both[1].values)


def test_passes_and_ops(shell: Shell) -> None:
    table = shell.ok("passes")
    listed = shell.json("passes")
    assert {p["name"] for p in listed["passes"]} == set(PASSES)
    assert set(listed["pipelines"]) == {f"@{name}" for name in PIPELINES}
    for name in PASSES:
        assert f"\n {name} " in table
        assert shell.ok("passes", name).startswith(f"{name}: ")
    one = shell.json("passes", "deeplift")
    assert one["options"][0]["name"] == "rule"
    assert one["contract"]
    ops = shell.json("ops")
    assert {"op", "family", "meaning"} == set(ops[0])
    assert all(o["meaning"] for o in ops)
    assert " conv " in shell.ok("ops")
    assert "no pass is called 'deeplft'. did you mean deeplift" in shell.refused("passes", "deeplft")


def test_demo(shell: Shell) -> None:
    pytest.importorskip("matplotlib")
    report = shell.json("demo", "--digits", "3")
    assert report["references"] == 100
    assert [r["digit"] for r in report["rows"]] == [0, 1, 2]
    for row in report["rows"]:
        scale = max(1.0, abs(row["prediction"] - row["base_value"]))
        assert abs(row["completeness_error"]) <= 1e-4 * scale
        assert row["milliseconds"] > 0
    assert (shell.folder / report["picture"]).read_bytes().startswith(b"\x89PNG")
    onnx.checker.check_model(report["model"], full_check=True)
    assert "in one ONNX file" in shell.ok("demo", "--digits", "1")


def test_the_demo_goes_on_without_matplotlib(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "irshap.demo.plot", None)
    shell("demo", "--digits", "1", "--json")
    assert shell.code == 0
    assert json.loads(shell.out)["picture"] is None
    assert 'pip install "irshap[plot]"' in shell.err


def test_the_demo_model_is_accurate_enough() -> None:
    images, labels = demo.digits()
    import onnxruntime

    session = onnxruntime.InferenceSession(demo.model_path(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": images})
    assert np.mean(logits.argmax(1) == labels) >= 0.97
    assert demo.model_path().stat().st_size < 200 * 1024


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("compile", "missing.onnx", "-r", "refs.npy", "-o", "out.onnx"), "missing.onnx: no such file"),
        (("compile", "refs.npy", "-r", "refs.npy", "-o", "out.onnx"), "refs.npy"),
        (("compile", "short.onnx", "-r", "refs.npy", "-o", "out.onnx"), "short.onnx"),
        (("compile", "empty.onnx", "-r", "refs.npy", "-o", "out.onnx"), "empty"),
        (("compile", ".", "-r", "refs.npy", "-o", "out.onnx"), "is a folder"),
        (
            ("compile", "flags.onnx", "-r", "refs.npy", "-o", "out.onnx"),
            "no float input that could be attributed",
        ),
        (("compile", "jumps.onnx", "-r", "refs.npy", "-o", "out.onnx"), "without a complete rule"),
        (("compile", "toy.onnx", "-o", "out.onnx"), "no references for input 'x'"),
        (("compile", "toy.onnx", "-r", "missing.npy", "-o", "out.onnx"), "missing.npy: no such file"),
        (("compile", "toy.onnx", "-r", "toy.onnx", "-o", "out.onnx"), "is neither .npy nor .npz"),
        (
            ("compile", "toy.onnx", "-r", "wide.npy", "-o", "out.onnx"),
            "has shape [2, 4], the model wants [R, 3]",
        ),
        (("compile", "toy.onnx", "-r", "none.npy", "-o", "out.onnx"), "there is no reference"),
        (
            ("compile", "toy.onnx", "-r", "int.npy", "-o", "out.onnx"),
            "has dtype int64, the model wants float32",
        ),
        (("compile", "toy.onnx", "-r", "nan.npy", "-o", "out.onnx"), "NaN or infinite, the first at [0, 1]"),
        (
            ("compile", "toy.onnx", "-r", "pickle.npy", "-o", "out.onnx"),
            "Python objects, which are never loaded",
        ),
        ((*COMPILE, "--weights", "refs.npy"), "reference weights: have dtype float32 and shape [2, 3]"),
        ((*COMPILE, "--target", "2"), "the output has 2 classes"),
        ((*COMPILE, "--target", "tops"), "unknown target 'tops'"),
        ((*COMPILE, "--explain", "z"), "the model has no float output 'z'"),
        ((*COMPILE, "--wrt", "hh"), "the model has no tensor 'hh' that an output depends on. did you mean h"),
        ((*COMPILE, "--context", "z"), "the model has no tensor 'z'"),
        ((*COMPILE, "--passes", "lift,lowr"), "no pass is called 'lowr'. did you mean lower"),
        ((*COMPILE, "--passes", "@nave"), "did you mean @naive"),
        (
            (*COMPILE, "--passes", "lift,target{tarjet=1},lower"),
            "has no option 'tarjet'. did you mean target",
        ),
        ((*COMPILE, "--passes", "lift,autodiff,bind-references,lower"), "requires 'target'"),
        ((*COMPILE, "--passes", "lift,dce"), "compiling starts and ends with a model"),
        ((*COMPILE, "--method", "lime"), "no method is called 'lime'"),
        ((*COMPILE, "--method", "epsilon-lrp{epsilon=0}"), "epsilon is 0.0, and must be a positive number"),
        ((*COMPILE, "--method", "gradient"), "the pipeline has no pass that would bind them"),
        ((*COMPILE, "--print-after", "fold"), "can't print after pass 'fold'"),
        ((*COMPILE, "--rule", "resale"), "resale"),
        ((*COMPILE, "--emit", "completeness"), "completeness"),
        (
            ("compile", "toy.onnx", "-r", "refs.npy", "-o", "toy.onnx"),
            "toy.onnx: it would overwrite the model",
        ),
        (("compile", "toy.onnx", "-r", "refs.npy", "-o", "no/out.onnx"), "its folder doesn't exist"),
        (("compile", "toy.onnx", "-r", "refs.npy", "-o", "."), "is a folder"),
        (("run", "missing.onnx", "x.npy"), "no such file"),
        (("run", "toy.onnx", "x.npy"), "returns no attributions"),
        (("run", "refs.npy", "x.npy"), "ONNX Runtime can't load it"),
        (("print", "missing.onnx"), "no such file"),
        (("print", "toy.onnx", "--passes", "lift,lower"), "pass lower gives a model, which has no text"),
        (("opt", "missing.ir", "--passes", "dce"), "missing.ir: can't be read"),
        (("opt", "refs.npy", "--passes", "dce"), "is no text"),
        (("opt", "text.ir", "--passes", "dce"), "1:1"),
        (("opt", "text.ir", "--passes", "lower"), "give --output"),
    ],
)
def test_bad_input(shell: Shell, args: tuple[str, ...], message: str) -> None:
    whole = (shell.folder / "toy.onnx").read_bytes()
    (shell.folder / "short.onnx").write_bytes(whole[: len(whole) // 2])
    (shell.folder / "empty.onnx").write_bytes(b"")
    (shell.folder / "text.ir").write_text("hello, world\n")
    onnx.save(toy("y = Cast <to = 1> (x)", "bool[N,2] x"), shell.folder / "flags.onnx")
    onnx.save(toy("r = Hardmax (x)\n" + BODY.replace("(x,", "(r,")), shell.folder / "jumps.onnx")
    arrays = {"wide": np.ones((2, 4)), "none": ROWS[:0], "int": ROWS.astype(int), "nan": [[1, np.nan, 2]]}
    for name, array in arrays.items():
        np.save(shell.folder / f"{name}.npy", array)
    np.save(shell.folder / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert message in shell.refused(*args)


@pytest.mark.parametrize(
    "args",
    [
        ("compil",),
        ("compile",),
        ("compile", "toy.onnx"),
        (*COMPILE, "--verify", "all"),
        ("run", "out.onnx"),
        ("demo", "--digits", "0"),
    ],
)
def test_usage_errors_exit_with_2(shell: Shell, args: tuple[str, ...]) -> None:
    shell(*args)
    assert shell.code == 2
    assert "Usage: irshap" in shell.err
    assert not (shell.folder / "out.onnx").exists()


def test_samples_that_do_not_fit(shell: Shell) -> None:
    shell.ok(*COMPILE)
    np.save(shell.folder / "wide.npy", np.ones((2, 4), np.float32))
    assert "has shape [2, 4]" in shell.refused("run", "out.onnx", "wide.npy", "--output", "result.npz")
    assert "folder doesn't exist" in shell.refused("run", "out.onnx", "x.npy", "--output", "no/result.npz")


def test_an_older_output_survives_a_failure(shell: Shell) -> None:
    shell.ok(*COMPILE)
    shell.refused(*COMPILE, "--target", "7")
    assert irshap.Explainer("out.onnx").attributed == ("x",)


def test_too_little_memory_is_one_message(shell: Shell) -> None:
    args = ("references", "x.npy", "--kind", "shuffle", "--per-sample", "-o", "r.npy")
    assert "there isn't enough memory for this" in shell.refused(*args, "-n", 10**14)


def test_an_interrupt_leaves_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("irshap.compiler.compile.PassManager.run", interrupt)
    assert shell(*COMPILE).code == 130
    assert not (shell.folder / "out.onnx").exists()
    assert "Traceback" not in shell.err


def test_a_failed_pass_exits_with_1(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, ir: Any, context: Any) -> Any:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("tempfile.tempdir", str(shell.folder / "crash"))
    (shell.folder / "crash").mkdir()
    monkeypatch.setattr(PASSES["dce"], "run", fail)
    assert shell(*COMPILE).code == 1
    assert "error: pass dce (" in shell.err
    assert "RuntimeError: unforeseen" in shell.err
    assert "Traceback" not in shell.err
    assert not (shell.folder / "out.onnx").exists()
    (dump,) = (shell.folder / "crash").iterdir()
    assert f"irshap opt {dump} --passes dce" in shell.err
    monkeypatch.undo()
    assert main(["opt", str(dump), "--passes", "dce"]) == 0


def test_names_from_a_model_cannot_steer_the_terminal(shell: Shell) -> None:
    model = toy()
    model.graph.input[0].name = model.graph.node[1].input[0] = "x\x1b[31m"
    onnx.save(model, shell.folder / "evil.onnx")
    shell("compile", "evil.onnx", "-o", "out.onnx")
    assert shell.code == 2
    assert "\x1b" not in shell.err
    model.graph.input[0].name = model.graph.node[1].input[0] = "x\n\u202e"
    onnx.save(model, shell.folder / "evil.onnx")
    out = shell.ok("compile", "evil.onnx", "-r", "refs.npy", "-o", "out.onnx")
    assert "  input    x?? : f32[N, 3]\n" in out and "\u202e" not in out
    assert "known: x??\n" in shell.refused("run", "out.onnx", npz(shell, nope=ROWS))


def npz(shell: Shell, **arrays: Any) -> str:
    np.savez(shell.folder / "arrays.npz", **arrays)
    return "arrays.npz"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"classes": ["a", "\\ud800"]}', "\udcff"])
def test_names_that_are_no_text(shell: Shell, text: str) -> None:
    (shell.folder / "names.json").write_bytes(text.encode(errors="surrogateescape"))
    shell.refused(*COMPILE, "--names", "names.json")


def test_progress_shows_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(stream: io.StringIO) -> str:
        monkeypatch.setattr("sys.stderr", stream)
        with PassProgress() as progress:
            progress.begins([DeadCodeElimination(), Canonicalize()])
            progress.before(0, DeadCodeElimination())
            time.sleep(0.2)
            progress.before(1, Canonicalize())
            time.sleep(0.2)
        return stream.getvalue()

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(PassProgress, "DELAY", 0.01)
    assert "canonicalize" in shown(Terminal())
    assert shown(io.StringIO()) == ""
    monkeypatch.setattr(PassProgress, "DELAY", 10.0)
    assert shown(Terminal()) == ""


def test_a_closed_pipe_is_no_error(shell: Shell) -> None:
    command = f'"{sys.executable}" -m irshap print toy.onnx | true'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ, check=False)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_what_is_said_of_a_model(shell: Shell) -> None:
    """Open axes, scalar inputs, and where the batch is: the same in compile, verify and cost."""
    body = "a = Mul(x, gain) b = Relu(a) y = ReduceSum<keepdims=0>(b, one)"
    text = f"(float[t,n,3] x, float gain) => (float[t,n] y) <int64[1] one = {{2}}> {{ {body} }}"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}'), "open.onnx")
    said = ("--set", "gain=2", "--batch-axis", "x=1", "--dim", "t=4", "--target", "1")
    np.save("four.npy", np.ones((2, 4, 3), np.float32))
    np.save("samples.npy", np.full((4, 5, 3), 2, np.float32))
    out = shell.ok("compile", "open.onnx", "-r", "four.npy", "-o", "out.onnx", *said)
    assert "input    x : f32[4, N, 3]" in out
    assert "fixed    t = 4: the file takes samples of this size alone" in out
    report = shell.json("verify", "open.onnx", "-r", "four.npy", "-i", "samples.npy", *said)
    assert report["ok"] and [row["sum_of_attributions"] for row in report["rows"]] == [6.0] * 5
    cost = shell.json("cost", "open.onnx", *said[:-2])
    assert cost["programs"][0]["flops"] > 0
    # the size that references have needn't be said
    assert (
        shell.json("cost", "open.onnx", "-r", "four.npy", *said[:4])["programs"]
        == shell.json("cost", "open.onnx", "-r", "2", *said[:-2])["programs"]
    )
    error = shell.refused("cost", "open.onnx", *said[:4])
    assert (
        "depends on the size of t, which the model leaves open. Say it (Model(dims=...), --dim t=SIZE)"
        in error
    )
    assert "doesn't say the size of an axis" in shell.refused("cost", "open.onnx", "--dim", "t")


def test_compile_a_quantized_model(shell: Shell) -> None:
    """Refused with the option to ask for; with it, what attributions leave out is warned of."""
    body = """
        s = Constant <value = float {0.5}> ()
        z = Constant <value = uint8 {128}> ()
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        w = Constant <value = float[3,2] {1, -2, 3, 0.5, 2, 1}> ()
        y = MatMul (d, w)
    """
    onnx.save(toy(body), "quantized.onnx")
    arguments = ("compile", "quantized.onnx", "-r", "refs.npy", "-o", "out.onnx", "--target", 0)
    assert "--quantized" in shell.refused(*arguments)
    shell(*arguments, "--quantized")
    assert shell.code == 0
    assert "lift,quantized,single" in shell.out
    assert "rounds to few levels" in shell.err and "completeness_error" in shell.err
    assert "completeness_error" in [o.name for o in onnx.load("out.onnx").graph.output]
