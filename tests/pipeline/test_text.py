"""Pipelines as text: what parses, what it means, and what is said about what doesn't."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irshap.compiler.catalog import PassManager
from irshap.errors import PipelineError
from irshap.pipeline import named as pipelines
from irshap.pipeline.base import PASSES, Context, Pass, Semantics
from irshap.pipeline.options import options_of
from irshap.pipeline.text import format_pipeline, parse_pipeline, pass_text


class Mode(Enum):
    FAST = "fast"
    EXACT = "exact"


@pytest.fixture(autouse=True)
def toys() -> Iterator[dict[str, type[Pass]]]:
    before = dict(PASSES)

    @dataclass(frozen=True)
    class Plain(Pass):
        """Does nothing."""

        name = "toy-plain"
        semantics = Semantics.PRESERVES

        def run(self, ir: Any, context: Context) -> Any:
            return ir

    @dataclass(frozen=True)
    class Rich(Pass):
        """Has every kind of option."""

        flag: bool = False
        count: int = 3
        scale: float = 1.0
        text: str = "a b"
        rule: Literal["rescale", "mix", 2] = "rescale"
        mode: Mode = Mode.FAST
        names: tuple[str, ...] = ()
        pair: tuple[int, float] = (1, 2.0)
        maybe: str | None = None
        either: int | str = 0
        name = "toy-rich"
        semantics = Semantics.PRESERVES

        def __post_init__(self) -> None:
            if self.count < 0:
                raise ValueError("count must not be negative")

        def run(self, ir: Any, context: Context) -> Any:
            return ir

    @dataclass(frozen=True)
    class Needy(Pass):
        """Needs its option."""

        to: str
        name = "toy-needy"
        semantics = Semantics.PRESERVES

        def run(self, ir: Any, context: Context) -> Any:
            return ir

    yield {"plain": Plain, "rich": Rich, "needy": Needy}
    PASSES.clear()
    PASSES.update(before)


def rich(**options: Any) -> Any:
    return PASSES["toy-rich"](**options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("flag=true", {"flag": True}),
        ("count=-7", {"count": -7}),
        ("scale=2", {"scale": 2.0}),
        ("scale=1e-4", {"scale": 1e-4}),
        ("scale=inf", {"scale": float("inf")}),
        ('text="say \\"x\\", {y}=(z)"', {"text": 'say "x", {y}=(z)'}),
        ("text=3", {"text": "3"}),
        ("text=true", {"text": "true"}),
        ("text=/conv1/Conv_output_0", {"text": "/conv1/Conv_output_0"}),
        ("rule=mix", {"rule": "mix"}),
        ("rule=2", {"rule": 2}),
        ("mode=exact", {"mode": Mode.EXACT}),
        ("names=(a, b,)", {"names": ("a", "b")}),
        ("names=()", {"names": ()}),
        ("names=alone", {"names": ("alone",)}),
        ("pair=(4, 0.5)", {"pair": (4, 0.5)}),
        ("maybe=none", {"maybe": None}),
        ('maybe="none"', {"maybe": "none"}),
        ("either=3", {"either": 3}),
        ('either="3"', {"either": "3"}),
        (" flag = true , count = 1 , ", {"flag": True, "count": 1}),
    ],
)
def test_option_values(options: str, expected: dict[str, Any]) -> None:
    if expected.get("count", 0) < 0:
        with pytest.raises(PipelineError, match="count must not be negative"):
            parse_pipeline(f"toy-rich{{{options}}}")
        return
    (parsed,) = parse_pipeline(f"toy-rich{{{options}}}")
    assert parsed == rich(**expected)
    assert parse_pipeline(pass_text(parsed)) == (parsed,)


def test_canonical_text_leaves_defaults_out() -> None:
    text = ' toy-plain ,\n toy-rich{ maybe="x y", flag=true, count=3 }, toy-needy{to=b} '
    assert (
        format_pipeline(parse_pipeline(text)) == 'toy-plain,toy-rich{flag=true,maybe="x y"},toy-needy{to=b}'
    )


_texts = st.text(max_size=12)


@given(
    st.fixed_dictionaries(
        {
            "flag": st.booleans(),
            "count": st.integers(0, 10**17),
            "scale": st.floats(allow_nan=False),
            "text": _texts,
            "rule": st.sampled_from(["rescale", "mix", 2]),
            "mode": st.sampled_from(list(Mode)),
            "names": st.lists(_texts, max_size=3).map(tuple),
            "pair": st.tuples(st.integers(-9, 9), st.floats(allow_nan=False)),
            "maybe": st.none() | _texts | st.sampled_from(["none", "true", "1"]),
            "either": st.integers(-99, 99) | _texts | st.sampled_from(["1", "-2"]),
        }
    )
)
def test_round_trip(options: dict[str, Any]) -> None:
    made = rich(**options)
    assert parse_pipeline(pass_text(made)) == (made,)


def test_named_pipelines_expand_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipelines.PIPELINES, "inner", "toy-plain,toy-rich{count=5}")
    monkeypatch.setitem(pipelines.PIPELINES, "outer", "@inner,toy-plain")
    names = [p.name for p in parse_pipeline("toy-plain,@outer,toy-needy{to=x}")]
    assert names == ["toy-plain", "toy-plain", "toy-rich", "toy-plain", "toy-needy"]


def test_a_named_pipeline_is_changed_by_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(text: str) -> list[str]:
        return [p.name for p in parse_pipeline(text)]

    default = names("@default")
    assert names("@default{without=polyphase}") == [n for n in default if n != "polyphase"]
    assert names("@default{without=(order, canonicalize)}") == [
        n for n in default if n not in ("order", "canonicalize")
    ]
    at = default.index("target")
    assert names("@default{before=(target, toy-plain)}") == [*default[:at], "toy-plain", *default[at:]]
    last = parse_pipeline('@default{after=(lift, "toy-rich{count=4}", toy-plain), without=(order)}')
    assert (last[1], last[2].name) == (rich(count=4), "toy-plain")
    assert [p.name for p in last] == [
        default[0],
        "toy-rich",
        "toy-plain",
        *(n for n in default[1:] if n != "order"),
    ]
    slotted = parse_pipeline("@default{without=order}", {"method": rich()})
    assert rich() in slotted
    with pytest.raises(PipelineError, match=r"@method stands for toy-rich. give options with"):
        parse_pipeline("@naive,@method{without=lift}", {"method": rich()})


def test_a_named_pipeline_that_contains_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipelines.PIPELINES, "a", "toy-plain,@b")
    monkeypatch.setitem(pipelines.PIPELINES, "b", "@a")
    with pytest.raises(PipelineError, match="@a contains itself"):
        parse_pipeline("@a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pipeline, character 1: is empty"),
        ("  ", "is empty"),
        ("toy-plan", r"character 1: no pass is called 'toy-plan'. did you mean toy-plain"),
        ("toy-plain,,toy-plain", 'character 11: expected the name of a pass, found ",toy-plain"'),
        ("toy-plain,", "character 11: expected the name of a pass, found the end"),
        ("toy-plain toy-plain", "character 11: expected a comma or the end"),
        ("@nave", "no pipeline is called @nave. did you mean @naive"),
        ("@naive{x=1}", "@naive has no option 'x'. it takes without=PASS, before="),
        ("@naive{without=polyphase}", "@naive has no pass 'polyphase'"),
        ("@naive{without=()}", "names no passes"),
        ("@naive{without=((dce))}", "names no passes"),
        ("@naive{before=lower}", r"before=lower names no pass to add. write before=\(lower, NEW\)"),
        ("@naive{after=(lowr, toy-plain)}", "@naive has no pass 'lowr'. did you mean lower"),
        ("@default{after=(dce, toy-plain)}", "@default has the pass dce 2 times. name one that it has once"),
        ("@naive{before=(lower, toy-plan)}", "no pass is called 'toy-plan'. did you mean toy-plain"),
        ("@naive{before=(lower, @naive)}", "@"),
        ('@naive{before=(lower, "@naive")}', "@naive contains itself"),
        ("@naive{without=dce,without=dce}", "option without of @naive is given twice"),
        ("@default-polyphase", r"to leave a pass out, write @default\{without=polyphase\}"),
        ("toy-plain{x=1}", "character 11: pass toy-plain has no option 'x'. it has none"),
        ("toy-rich{cuont=1}", "no option 'cuont'. did you mean count"),
        ("toy-rich{count=1,count=2}", "character 18: option count of pass toy-rich is given twice"),
        ("toy-rich{count=many}", "option count of pass toy-rich can't be many. it takes int"),
        ("toy-rich{count=1.5}", "can't be 1.5. it takes int"),
        ('toy-rich{count="1"}', 'can\'t be "1". it takes int'),
        ("toy-rich{flag=yes}", r"can't be yes. it takes true\|false"),
        ("toy-rich{rule=resale}", r"can't be resale. it takes rescale\|mix\|2"),
        ("toy-rich{mode=slow}", r"it takes fast\|exact"),
        ("toy-rich{pair=(1,2,3)}", r"can't be \(1, 2, 3\). it takes \(int, number\)"),
        ("toy-rich{scale=nan}", "can't be nan. it takes number"),
        ("toy-rich{scale=(1)}", "it takes number"),
        ("toy-rich{count}", "expected '=', found \"}\""),
        ("toy-rich{count=", "expected a value, found the end"),
        ("toy-rich{count=1", "expected ',', found the end"),
        ('toy-rich{text="abc', "expected a value"),
        ('toy-rich{text="\\q"}', "escape"),
        ("toy-rich{names=((((((((((a))))))))))}", "too many nested parentheses"),
        ("toy-rich{count=999999999999999999999999}", "it takes int"),
        ("toy-rich{count=__import__('os')}", "expected ','"),
        ("toy-needy", r"pass toy-needy lacks an option. give to=<text>"),
        ("toy-plain" + ",toy-plain" * 20000, "longer than"),
    ],
)
def test_bad_text(text: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message) as caught:
        parse_pipeline(text)
    assert caught.value.exit_code == 2


TWICE = {
    "target": "lift,target,target,autodiff,deeplift,lower",
    "adjoint": "lift,target,autodiff,autodiff,deeplift,lower",
}


@pytest.mark.parametrize("given", TWICE)
def test_what_can_be_made_once_alone(given: str) -> None:
    with pytest.raises(PipelineError, match=f"makes a program {given!r}, which it already is") as caught:
        PassManager.from_text(TWICE[given])
    assert "pass" in str(caught.value.where)


def test_near_names_of_real_passes() -> None:
    with pytest.raises(PipelineError, match="did you mean canonicalize"):
        parse_pipeline("lift,cannonicalize")


def test_an_option_without_a_form_in_text_is_the_authors_fault() -> None:
    @dataclass(frozen=True)
    class Odd(Pass):
        """Has an option that text can't hold."""

        table: dict[str, int] | None = None
        name = "toy-odd"
        semantics = Semantics.PRESERVES

        def run(self, ir: Any, context: Context) -> Any:
            return ir

    with pytest.raises(TypeError, match="no form in a pipeline's text"):
        parse_pipeline("toy-odd{table=x}")


def test_options_describe_themselves() -> None:
    texts = [option.text for option in options_of(PASSES["toy-rich"]).values()]
    assert texts[:5] == ["flag=false", "count=3", "scale=1.0", 'text="a b"', "rule=rescale"]
    assert texts[-2:] == ["maybe=none", "either=0"]


@pytest.mark.parametrize("name", sorted(pipelines.PIPELINES))
def test_every_named_pipeline_parses(name: str) -> None:
    passes = parse_pipeline(f"@{name}")
    assert parse_pipeline(format_pipeline(passes)) == passes
