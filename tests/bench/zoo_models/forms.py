"""What ONNX Runtime's optimizers and quantizers make of a network's file.

`basic`, `extended` and `all` are what a session saves at its levels of optimization, `transformers` is what
the optimizer for transformers writes. `qdq` and `qoperator` are static quantization to 8 bits, `dynamic`
finds the ranges of activations at run time, `int4` quantizes the weights of matrix products alone
(MatMulNBits) and `int4_qdq` the same with DequantizeLinear.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnxruntime import quantization
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer, QuantFormat
from onnxruntime.transformers.optimizer import optimize_model
from torch import nn

from zoo_models import hugging, recurrent, torch_export, vision
from zoo_models.case import PLAIN, Case, Inputs, noise, rows, variants

__all__ = ["cases", "export", "make", "models"]

LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
STATIC = {"qdq": quantization.QuantFormat.QDQ, "qoperator": quantization.QuantFormat.QOperator}
NBITS = {"int4": QuantFormat.QOperator, "int4_qdq": QuantFormat.QDQ}
BLOCK = 16
ROUNDED = (*STATIC, "dynamic")
"""Forms that round activations: compiled on request, with the gap reported."""


def make_mlp(_: str) -> tuple[nn.Module, Inputs]:
    layers = [nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 3)]
    return vision.settle(nn.Sequential(*layers), noise("x", (32,)))


NETWORKS: dict[str, tuple[Callable[[str], tuple[nn.Module, Inputs]], str]] = {
    # how it is made, and as what the optimizer for transformers takes it
    "resnet18": (vision.make_torchvision, ""),
    "mobilenet_v2": (vision.make_torchvision, ""),
    "mlp": (make_mlp, ""),
    "lstm_words": (recurrent.make, ""),
    "bert": (hugging.make_text, "bert"),
    "distilbert": (hugging.make_text, "bert"),
    "roberta": (hugging.make_text, "bert"),
    "gpt2": (hugging.make_text, "gpt2"),
    "llama": (hugging.make_text, "gpt2"),
    "vit": (hugging.make_images, "vit"),
}


def models() -> dict[str, bool]:
    return dict.fromkeys(NETWORKS, False)


def cases(suite: str, model: str, sized: bool) -> list[Case]:
    forms = [PLAIN, *LEVELS, *(["transformers"] if NETWORKS[model][1] else []), *STATIC, "dynamic", *NBITS]
    plain = variants(suite, model, sized, ("dynamic",))
    return [replace(case, form=form) for case in plain for form in forms]


def make(name: str) -> tuple[nn.Module, Inputs]:
    model, inputs = NETWORKS[name][0](name)
    if hasattr(getattr(model, "model", None), "set_attn_implementation"):
        model.model.set_attn_implementation("eager")  # the form whose pattern the optimizers know
    return model, inputs


def export(case: Case, model: nn.Module, inputs: Inputs, file: Path) -> Inputs:
    """Writes the plain file, where it isn't there, and makes the case's form of it."""
    plain = file.with_name(f"{replace(case, form=PLAIN).stem}.onnx")
    if not plain.exists():
        torch.manual_seed(0)
        torch_export.export(case, model, inputs, plain)
    if case.form == PLAIN:
        return inputs
    logging.disable(logging.WARNING)
    if case.form in LEVELS:
        _optimized(plain, LEVELS[case.form], file)
    elif case.form == "transformers":
        optimize_model(str(plain), NETWORKS[case.model][1], num_heads=4, hidden_size=32).save_model_to_file(
            str(file)
        )
    elif case.form in NBITS:
        quantizer = MatMulNBitsQuantizer(
            onnx.load(plain), block_size=BLOCK, is_symmetric=False, quant_format=NBITS[case.form]
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(file))
    elif case.form == "dynamic":
        quantization.quantize_dynamic(plain, file)
    else:
        quantization.quantize_static(plain, file, Samples(inputs), quant_format=STATIC[case.form])
    told: dict[str, Any] = {**inputs.told, "plain": plain.name}
    if case.form in ROUNDED:
        told["quantized"] = True
    if case.form == "dynamic":  # in a batch it takes one range for all samples
        told["alone"] = True
    return replace(inputs, told=told)


def _optimized(plain: Path, level: Any, file: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(file)
    onnxruntime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])


class Samples(quantization.CalibrationDataReader):  # type: ignore[misc]
    """The samples and the references as what ranges are calibrated on."""

    def __init__(self, inputs: Inputs) -> None:
        given = {n: inputs.samples[n][: len(a)] for n, a in inputs.references.items()}
        missing = {n: a for n, a in inputs.samples.items() if n not in given}
        count = len(next(iter(inputs.references.values())))
        beside = {**inputs.references, **{n: a[:count] for n, a in missing.items()}}
        self.left = [*inputs.rows(), *rows(beside, inputs.axes)]

    def get_next(self) -> Any:
        return dict(self.left.pop()) if self.left else None
