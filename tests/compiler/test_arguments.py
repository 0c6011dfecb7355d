"""Arguments of the wrong kind: one message in the words of Python, never a traceback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irshap
from irshap import demo
from irshap.attribution.targets import target_text
from irshap.errors import IrshapError, PipelineError, TargetError, UserError

REFERENCES = np.load(demo.references_path())[:2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"wrt": ["image"]}, UserError, r"compile has no argument 'wrt'. say it by target=Target\(wrt=...\)"),
        ({"per_sample": True}, UserError, r"say it by references=References\(per_sample=...\)"),
        ({"dims": {}}, UserError, r"say it by model=Model\(dims=...\)"),
        ({"context_inputs": ["image"]}, UserError, r"say it by target=Target\(context=...\)"),
        ({"rule": "mixed"}, UserError, r"no argument 'rule'. say it by method=DeepLift\(rule=...\)"),
        ({"progress": True}, UserError, "no argument 'progress'. known: device, fp16, groups, instruments"),
        ({"memory_limt": 1}, UserError, "no argument 'memory_limt'. did you mean memory_limit"),
        ({"target": None}, TargetError, "target None is no class. Use a class index"),
        ({"target": 3.0}, TargetError, "target 3.0 is no class"),
        ({"target": True}, TargetError, "target True is no class"),
        ({"target": []}, TargetError, "is no class"),
        ({"target": [1, "a"]}, TargetError, "is no class"),
        ({"target": np.array(1.0)}, TargetError, r"target array\(1\.\) is no class"),
        ({"target": "top-11"}, TargetError, "the output has 10 classes. Use top-1 to top-10"),
        ({"target": "top-0"}, TargetError, "Use top-1 to top-10"),
        ({"method": None}, PipelineError, "None is no method. give its name"),
        ({"method": irshap.DeepLift}, PipelineError, "is no method"),
        ({"passes": ["lift", "lower"]}, PipelineError, "is no text. give passes with commas between"),
        ({"device": None}, PipelineError, "device=None is no text. give cpu or cuda"),
        ({"strategy": 3}, PipelineError, "strategy=3 is no text. give auto, fold"),
        ({"fp16": "yes"}, PipelineError, "fp16='yes' is neither True nor False"),
        ({"quantized": 1}, PipelineError, "quantized=1 is neither True nor False"),
        ({"names": {"features": {"imag": ["a"]}}}, UserError, "features of 'imag', which isn't attributed"),
        ({"names": {"features": ["a"]}}, UserError, "1 features of 'image', whose last axis has 8"),
        ({"passes": "@default,fp16"}, PipelineError, r"takes more: @default{before=\(lower, PASS\)}"),
        ({"instruments": ["numeric"]}, PipelineError, "'numeric' is no instrument. give a list of those in"),
    ],
)
def test_of_the_wrong_kind(arguments: dict[str, Any], error: type[IrshapError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        irshap.compile(demo.model_path(), REFERENCES, **arguments)
    assert "\n" not in str(caught.value)


def test_an_array_of_one_number_is_a_class() -> None:
    """As `torch.tensor(3)` and `labels[0]` are."""
    assert irshap.Target(target_text(np.array(3))) == irshap.Target(target_text(3))
    assert target_text(np.array([3])) == target_text([3]) != target_text(3)


@pytest.mark.parametrize("option", ["output", "wrt", "context"])
def test_names_are_texts_or_lists_of_texts(option: str) -> None:
    given: Any = {option: ["a", "b"]}
    assert getattr(irshap.Target(**given), option) == "a, b"
    given = {option: [3]}
    with pytest.raises(TargetError, match=f"{option}=.3. is no name. Give a tensor's name, or a list"):
        irshap.Target(**given)
