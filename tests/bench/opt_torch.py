"""OPT-TORCH: the optimized algorithm of `@default`, written by hand in torch.

    python tests/bench/opt_torch.py NAME ... [--references 3]

The references run once, when the explainer is made, and what their nonlinearities need is kept.  An
explanation runs the sample alone (batch 1, no copies), then goes back over R rows with the same chords as
irshap's.  So its time against SHAP's is the gain of the algorithm, and irshap's against its time the gain of
compiling and of the runtime.  The command compares it in float64 with what completeness demands.
"""

from __future__ import annotations

import argparse
import operator
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn import functional

At = Mapping[fx.Node, Tensor]
Back = Callable[[Tensor, At], Iterable[tuple[fx.Node, Tensor]]]
"""From a node's multiplier [1 or R, ...] and the sample's values to the multipliers of its operands."""
Rule = Callable[[fx.Node, Any, At], Back]
"""Makes a node's `Back` from its module and the references' values, of which it keeps what it needs."""

RULES: dict[Any, Rule] = {}


def rule(*kinds: Any) -> Callable[[Rule], Rule]:
    """Registers a rule for types of modules and for functions."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


class Explained(NamedTuple):
    """One sample's outputs [1, K], attributions [1, ...], explained class, and mean of the references."""

    outputs: Tensor
    values: Tensor
    target: int
    base: float


class OptTorch:
    """Explains the largest output of a traced network in eval mode against fixed references [R, ...]."""

    def __init__(self, model: fx.GraphModule, references: Tensor) -> None:
        self.model, self.references = model, references
        self.nodes = [n for n in model.graph.nodes if n.op in ("call_module", "call_function", "call_method")]
        self.input = next(n for n in model.graph.nodes if n.op == "placeholder")
        (self.output,) = next(n for n in model.graph.nodes if n.op == "output").args
        with torch.inference_mode():
            world = _References(model)
            self.base = world.run(references)
        self.backs = world.backs

    def __call__(self, x: Tensor) -> Explained:
        """Explains one sample [1, ...]."""
        with torch.inference_mode():
            world = fx.Interpreter(self.model, garbage_collect_values=False)
            outputs = world.run(x)
            target = int(outputs.argmax())
            chosen = functional.one_hot(torch.tensor([target]), outputs.shape[1]).to(outputs.dtype)
            multipliers: dict[fx.Node, Tensor] = {self.output: chosen}
            for node in reversed(self.nodes):
                if node in multipliers:
                    for operand, share in self.backs[node](multipliers.pop(node), world.env):
                        old = multipliers.get(operand)
                        multipliers[operand] = share if old is None else old + share
            values = (multipliers[self.input] * (x - self.references)).mean(0, keepdim=True)
            return Explained(outputs, values, target, float(self.base[:, target].mean()))


class _References(fx.Interpreter):
    """Runs the references, and lets each node's rule keep what it needs of their values."""

    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model)
        self.backs: dict[fx.Node, Back] = {}

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if node.op in ("call_module", "call_function", "call_method"):
            module = self.fetch_attr(node.target) if node.op == "call_module" else None
            kind = node.target if module is None else type(module)
            if kind not in RULES:
                raise NotImplementedError(f"no rule for {kind} at {node.name}: write one with @rule")
            self.backs[node] = RULES[kind](node, module, ChainMap({node: result}, self.env))
        return result


def like(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor without memory of its own, with g's batch and then `shape`."""
    return g.new_empty(()).expand(len(g), *shape)


@rule(nn.Dropout, nn.Identity, torchvision.ops.stochastic_depth)
def same(node: fx.Node, module: Any, at0: At) -> Back:
    return lambda g, at: [(node.args[0], g)]


@rule(torch.flatten)
def flatten(node: fx.Node, module: Any, at0: At) -> Back:
    shape = at0[node.args[0]].shape[1:]
    return lambda g, at: [(node.args[0], g.reshape(len(g), *shape))]


@rule(operator.add)
def add(node: fx.Node, module: Any, at0: At) -> Back:
    return lambda g, at: [(operand, g) for operand in node.args]


@rule(torch.cat)
def cat(node: fx.Node, module: Any, at0: At) -> Back:
    operands, axis = node.args
    sizes = [at0[v].shape[axis] for v in operands]
    return lambda g, at: zip(operands, g.split(sizes, axis), strict=True)


@rule(operator.mul)
def mul(node: fx.Node, module: Any, at0: At) -> Back:
    """u v: each operand's multiplier is the other at the midpoint, summed where it was broadcast."""
    u, v = node.args
    u0, v0 = at0[u], at0[v]

    def back(g: Tensor, at: At) -> Iterable[tuple[fx.Node, Tensor]]:
        for one, one0, other, other0 in ((u, u0, v, v0), (v, v0, u, u0)):
            share = (at[other] + other0).mul_(0.5) * g
            axes = [i for i in range(1, one0.ndim) if one0.shape[i] < share.shape[i]]
            yield one, share.sum(axes, keepdim=True) if axes else share

    return back


@rule(nn.Linear)
def linear(node: fx.Node, module: Any, at0: At) -> Back:
    return lambda g, at: [(node.args[0], g @ module.weight)]


@rule(nn.Conv2d)
def conv(node: fx.Node, module: Any, at0: At) -> Back:
    shape = at0[node.args[0]].shape[1:]
    sizes = (module.stride, module.padding, module.dilation, module.groups)

    def back(g: Tensor, at: At) -> Iterable[tuple[fx.Node, Tensor]]:
        yield node.args[0], nn.grad.conv2d_input((len(g), *shape), module.weight, g, *sizes)

    return back


@rule(nn.BatchNorm2d)
def batch_norm(node: fx.Node, module: Any, at0: At) -> Back:
    scale = (module.weight / (module.running_var + module.eps).sqrt()).reshape(-1, 1, 1)
    return lambda g, at: [(node.args[0], g * scale)]


@rule(nn.AvgPool2d)
def average_pool(node: fx.Node, module: Any, at0: At) -> Back:
    sizes = (module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad)
    adjoint = torch.ops.aten.avg_pool2d_backward
    shape = at0[node.args[0]].shape[1:]
    return lambda g, at: [(node.args[0], adjoint(g, like(g, shape), *sizes, module.divisor_override))]


@rule(nn.AdaptiveAvgPool2d, functional.adaptive_avg_pool2d)
def adaptive_average_pool(node: fx.Node, module: Any, at0: At) -> Back:
    adjoint = torch.ops.aten._adaptive_avg_pool2d_backward
    shape = at0[node.args[0]].shape[1:]
    return lambda g, at: [(node.args[0], adjoint(g, like(g, shape)))]


@rule(nn.ReLU)
def relu(node: fx.Node, module: Any, at0: At) -> Back:
    """(y + y0) / (|x| + |x0|)."""
    source, y0, size0 = node.args[0], at0[node], at0[node.args[0]].abs()
    tiny = torch.finfo(y0.dtype).tiny

    def back(g: Tensor, at: At) -> Iterable[tuple[fx.Node, Tensor]]:
        chord = (at[node] + y0).div_(at[source].abs().clamp_(min=tiny) + size0)
        yield source, chord.mul_(g)

    return back


@rule(nn.SiLU)
def silu(node: fx.Node, module: Any, at0: At) -> Back:
    """(Dy D + h^2 f'(x)) / (D^2 + h^2), h^2 the machine's precision."""
    source, x0, y0 = node.args[0], at0[node.args[0]], at0[node]
    h2 = torch.finfo(y0.dtype).eps

    def back(g: Tensor, at: At) -> Iterable[tuple[fx.Node, Tensor]]:
        x, y = at[source], at[node]
        gate = x.sigmoid()
        slope = gate + y * (1 - gate)
        d = x - x0
        chord = (y - y0).mul_(d).add_(slope * h2).div_(d.square_().add_(h2))
        yield source, chord.mul_(g)

    return back


@rule(nn.Sigmoid)
def sigmoid(node: fx.Node, module: Any, at0: At) -> Back:
    """sig(hi) sig(-lo) (1 - e^-d)/d."""
    source, x0, y0 = node.args[0], at0[node.args[0]], at0[node]

    def back(g: Tensor, at: At) -> Iterable[tuple[fx.Node, Tensor]]:
        x, y = at[source], at[node]
        d = (x - x0).abs()
        phi = torch.where(d > 0, -torch.expm1(-d) / d, torch.ones_like(d))
        yield source, torch.maximum(y, y0) * torch.sigmoid(-torch.minimum(x, x0)) * phi * g

    return back


@rule(nn.MaxPool2d)
def max_pool(node: fx.Node, module: Any, at0: At) -> Back:
    """With M = max(y, y0): g (M - y0) to x's positions, g (y - M) to the reference's; their sum by D."""
    source, x0, y0 = node.args[0], at0[node.args[0]], at0[node]
    sizes = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    pool = torch.ops.aten.max_pool2d_with_indices
    scatter = torch.ops.aten.max_pool2d_with_indices_backward
    index0 = pool(x0, *sizes)[1]

    def back(g: Tensor, at: At) -> Iterable[tuple[fx.Node, Tensor]]:
        x, y = at[source], at[node]
        top = torch.maximum(y, y0)
        index = pool(x, *sizes)[1].expand_as(index0).contiguous()
        gain = scatter(g * (top - y0), x0, *sizes, index)
        loss = scatter(g * (y - top), x0, *sizes, index0)
        d = x - x0
        yield source, torch.where(d == 0, 0.0, gain.add_(loss).div_(d))

    return back


def main() -> None:
    """Completeness in float64 on the benchmark's networks."""
    import networks

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(networks.NAMES), metavar="NAME")
    parser.add_argument("--references", type=int, default=3)
    options = parser.parse_args()
    for name in options.names:
        model = networks.build(name).double()
        references = networks.images(options.references, seed=99).double()
        outputs, values, target, base = OptTorch(model, references)(networks.images(1, seed=5).double())
        gap = float(outputs[0, target]) - base
        print(f"{name}: |f - base - sum| / |f - base| = {abs(gap - float(values.sum())) / abs(gap):.1e}")


if __name__ == "__main__":
    main()
