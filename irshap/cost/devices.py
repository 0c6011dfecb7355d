"""Hardware that one doesn't have: memory, arithmetic and bandwidth of a few devices, from their data sheets.

Peak numbers of dense products, without sparsity.  Real kernels reach a part of them, so that times from this
table are lower bounds: estimates for comparing programs and devices with each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from irshap.cost.formula import Binding, evaluate
from irshap.cost.nodes import NodeCost, Phase
from irshap.errors import UserError, near
from irshap.runtime.sizes import parse_size

__all__ = ["DEVICES", "Device", "device", "roofline"]

GIB = 2**30
TERA = 10**12
GIGA = 10**9


@dataclass(frozen=True)
class Device:
    """A device: bytes of memory, FLOP/s in float32 and float16, bytes/s to and from its memory."""

    name: str
    memory: int
    flops32: float
    flops16: float
    bandwidth: float


# NVIDIA's data sheets.  float32 is that of ordinary units, or of TF32 where none is named by the runtime's
# default; ONNX Runtime uses TF32 on A10 and later by default (CUDA provider, use_tf32).
_LISTED = (
    # "NVIDIA V100 Tensor Core GPU", 2020: SXM2, 15.7 TFLOPS single, 125 TFLOPS tensor, 900 GB/s
    Device("V100-16GB", 16 * GIB, 15.7 * TERA, 125 * TERA, 900 * GIGA),
    Device("V100-32GB", 32 * GIB, 15.7 * TERA, 125 * TERA, 900 * GIGA),
    # "NVIDIA T4", 2019: 8.1 TFLOPS single, 65 TFLOPS mixed precision, 320 GB/s
    Device("T4", 16 * GIB, 8.1 * TERA, 65 * TERA, 320 * GIGA),
    # "NVIDIA A10", 2021: TF32 62.5 TFLOPS, FP16 tensor 125 TFLOPS, 600 GB/s
    Device("A10", 24 * GIB, 62.5 * TERA, 125 * TERA, 600 * GIGA),
    # "NVIDIA A100 Tensor Core GPU", 2021: TF32 156 TFLOPS, FP16 tensor 312 TFLOPS; 1,555 GB/s and 2,039 GB/s
    Device("A100-40GB", 40 * GIB, 156 * TERA, 312 * TERA, 1555 * GIGA),
    Device("A100-80GB", 80 * GIB, 156 * TERA, 312 * TERA, 2039 * GIGA),
    # "NVIDIA H100 Tensor Core GPU", 2023: SXM, TF32 494.5 TFLOPS, FP16 tensor 989.5 TFLOPS, 3.35 TB/s
    Device("H100", 80 * GIB, 494.5 * TERA, 989.5 * TERA, 3350 * GIGA),
)
DEVICES: dict[str, Device] = {d.name: d for d in _LISTED}

CORE_FLOPS, CORE_BANDWIDTH = 75 * GIGA, 10 * GIGA
"""A server core with AVX-512: 64 FLOPs a cycle (two fused multiply-adds of 16 floats) at a sustained 2.4 GHz
are 154 GFLOP/s; half of that is what convolutions of ONNX Runtime reach.  The bandwidth is that of a core."""


def device(name: str) -> Device:
    """A device by its name in the table, or `cpu:CORESxMEMORY` such as `cpu:2x8GiB`.

    Raises:
        UserError: no such device.
    """
    for known in DEVICES.values():
        if known.name.lower() == name.lower():
            return known
    kind, _, size = name.partition(":")
    cores, _, memory = size.partition("x")
    if kind.lower() == "cpu" and cores.isdecimal() and int(cores):
        rate = int(cores) * CORE_FLOPS
        # float16 is converted to float32 there
        return Device(name, parse_size(memory), rate, rate, int(cores) * CORE_BANDWIDTH)
    mend = f"{near(name, DEVICES)}; for a CPU write cpu:CORESxMEMORY, such as cpu:8x16GiB"
    raise UserError(f"no device is called {name!r}", mend=mend)


def roofline(nodes: Iterable[NodeCost], on: Device, binding: Binding, *, half: bool = False) -> float:
    """Seconds, if each node took the longer of its arithmetic and its traffic with memory: an estimate."""
    rate = on.flops16 if half else on.flops32
    seconds = 0.0
    for node in nodes:
        if node.phase is not Phase.LOAD:
            work, traffic = evaluate(node.flops, binding), evaluate(node.moved, binding)
            seconds += max(work / rate, traffic / on.bandwidth)
    return seconds
