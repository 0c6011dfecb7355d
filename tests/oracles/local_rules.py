"""Plain definitions of the methods that look at the sample alone, in float64 and numpy; no code is irshap's.

The chain rule over an ONNX model, node by node: what goes back through a node is its transposed Jacobian,
from central differences of the node's own forward evaluation, so no derivative is written here.  A method may
put another slope in the place of an elementwise nonlinearity's.

    chain(model, {"x": sample}, target=0)["x"]                    dT/dx
    chain(model, {"x": sample}, target=0, slope=epsilon(1e-4))    Ancona et al. 2018's modified gradient
    chain(model, {"x": sample}, target=0, guided=True)            Springenberg et al. 2015's
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from two_world import TwoWorlds, chosen_target
from two_world_core import Array, Call

__all__ = ["NONLINEARITIES", "chain", "epsilon"]

NONLINEARITIES = ("Relu", "LeakyRelu", "Elu", "Tanh", "Sigmoid", "Softplus")
STEP = 1e-6

Slope = Callable[[Array, Array], Array]
"""(z, f(z)) -> what stands for f'(z)"""


def epsilon(size: float) -> Slope:
    """f(z) / (z + size s), s = 1 for z >= 0 and -1 below."""
    return lambda z, y: y / (z + np.where(z >= 0, size, -size))


def chain(
    model: onnx.ModelProto,
    sample: Mapping[str, Array],
    *,
    target: int | None = None,
    slope: Slope | None = None,
    guided: bool = False,
) -> dict[str, Array]:
    """For each input [N, ...] the multiplier that reaches it from the first output at flat index `target`."""
    worlds = TwoWorlds(model)
    count = len(next(iter(sample.values())))
    found: dict[str, list[Array]] = {name: [] for name in worlds.free}
    for i in range(count):
        values = worlds.world(worlds.rows(sample, i, count))
        row = np.asarray(values[worlds.explained])
        seed = np.zeros(row.shape)
        seed.reshape(-1)[chosen_target(row, target)] = 1.0
        back: dict[str, Array] = {worlds.explained: seed}
        for node, call in reversed(worlds.path):
            if guided and call.op == "Relu" and node.output[0] in back:
                back[node.output[0]] = np.clip(back[node.output[0]], 0, None)
            for name, ct in _through(worlds, node, call, values, back, slope).items():
                back[name] = back.get(name, 0.0) + ct
        for name, rows in found.items():
            rows.append(back.get(name, np.zeros(np.shape(values[name]))))
    return {name: np.concatenate(rows) for name, rows in found.items()}


def _through(
    worlds: TwoWorlds,
    node: onnx.NodeProto,
    call: Call,
    values: dict[str, Any],
    back: Mapping[str, Array],
    slope: Slope | None,
) -> dict[str, Array]:
    """What reaches the operands of one node."""
    cts = {name: back[name] for name in node.output if name in back}
    if slope is not None and call.op in NONLINEARITIES:
        (ct,) = cts.values()
        z, y = values[node.input[0]], values[node.output[0]]
        return {node.input[0]: ct * slope(z, y)}
    pulled: dict[str, Array] = {}
    for name in {n for n in node.input if n in worlds.active}:
        x = np.asarray(values[name], float)
        ct = np.zeros(x.size)
        for j in range(x.size):
            ends = []
            for step in (STEP, -STEP):
                moved = x.copy()
                moved.reshape(-1)[j] += step
                around = {**values, name: moved}
                worlds.run_node(node, call, around)
                ends.append({n: np.asarray(around[n], float) for n in cts})
            ct[j] = sum(np.sum(g * (ends[0][n] - ends[1][n])) for n, g in cts.items()) / (2 * STEP)
        pulled[name] = ct.reshape(x.shape)
    return pulled
