"""Whether a program is nonnegatively homogeneous in some of its tensors: f(a x) = a^k f(x) for a > 0.

It is what X-Gradient needs (Hesse, Schaub-Meyer, Roth 2021): x df/dx then sums to k f(x), and is integrated
gradients against zeros.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from irshap.attribution.sources import model_inputs
from irshap.ir.core import Graph, Node, Role, Value
from irshap.ir.degrees import Broken, Degree, degrees_of
from irshap.ir.walks import is_float

__all__ = ["Homogeneity", "degrees", "homogeneity"]


@dataclass(frozen=True)
class Homogeneity:
    """What `homogeneity` found.

    Attributes:
        scaled: the float inputs, and "" for all of them together, where there are several.
        of: for each of these the degree of each value, or the op that breaks it.
        graph: the program whose values these are.
    """

    scaled: tuple[str, ...]
    of: Mapping[str, Mapping[Value, Degree | Broken]]
    graph: Graph

    @property
    def outputs(self) -> dict[str, dict[str, Degree | Broken]]:
        """For each float output of the model its degree in each of `scaled`."""
        listed = [o for o in self.graph.outputs_of(Role.MODEL) if is_float(o.value)]
        return {o.name: {name: self.of[name][o.value] for name in self.scaled} for o in listed}


def homogeneity(graph: Graph) -> Homogeneity:
    """The degree of each value of a model in each float input, and in all of them together."""
    floats = [v for v in model_inputs(graph) if is_float(v)]
    every = [[v] for v in floats] + ([floats] if len(floats) > 1 else [])
    names = [*(str(v.name) for v in floats), *([""] if len(floats) > 1 else [])]
    found = {name: degrees(graph, values) for name, values in zip(names, every, strict=True)}
    return Homogeneity(tuple(names), found, graph)


def degrees(
    graph: Graph, scaled: Collection[Value], nodes: Iterable[Node] | None = None
) -> dict[Value, Degree | Broken]:
    """The degree of each value where `scaled` are multiplied by one number and all other inputs stay.

    Args:
        nodes: those to look at, in order; None: all.
    """
    given: dict[Value, Degree | Broken] = dict.fromkeys(graph.inputs, 0.0)
    given |= dict.fromkeys(scaled, 1.0)
    return degrees_of(graph.nodes if nodes is None else nodes, given)
