"""step: the optimizer, from gradients to the next parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from irshap import contract
from irshap.errors import UserError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Output, Role, Value
from irshap.ir.types import DType, TensorType
from irshap.ops.cast import cast
from irshap.ops.elementwise import Sqrt
from irshap.ops.power import Pow
from irshap.ops.program import STATE, TRAINING, constant, new_input
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Optimizers", "Step"]

Optimizers = Literal["sgd", "adamw"]


class _States:
    """What a step hands on: inputs that are read, and outputs with what becomes of them."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken
        self.outputs: list[Output] = []

    def read(self, name: str, type: TensorType) -> Value:
        return new_input(contract.free(name, self.taken), type, STATE)

    def hand_on(self, old: Value, new: Value) -> None:
        name = str(old.name)
        self.outputs.append(Output(contract.next_of(name), new, Role.NEXT, name))


Move = Callable[[Value, Value], Value]
"""(parameter, gradient) -> the next parameter."""


@dataclass(frozen=True)
class Step(Pass):
    """Replaces gradients g by the next parameters p, and appends the next state of the optimizer.

    The input `learning_rate` is l.  "sgd": d = g + weight_decay p, v = momentum v + d, p - l v; with
    `nesterov` p - l (d + momentum v) (Sutskever et al. 2013, in torch's form).  "adamw" (Loshchilov, Hutter
    2019): m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and in step t, which the state `steps`
    counts, p (1 - l weight_decay) - l m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon).
    The state starts from zeros: `<parameter>_momentum`, or `<parameter>_mean` and `<parameter>_square`.
    """

    optimizer: Optimizers = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    name = "step"
    semantics = Semantics.REPLACES
    requires = frozenset({"gradients"})
    removes = frozenset({"gradients"})

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum > 0:
            raise ValueError("nesterov needs a momentum")
        if self.optimizer == "adamw" and (self.momentum or self.nesterov):
            raise ValueError("momentum is sgd's; adamw has beta1")

    def run(self, ir: Graph, context: Context) -> Graph:
        with Builder() as b:
            mapping = b.graft(ir)
            states = _States({str(v.name) for v in ir.inputs})
            gradients = {str(o.of): mapping[o.value] for o in ir.outputs_of(Role.GRADIENT)}
            dtypes = {g.dtype for g in gradients.values()}
            if len(dtypes) > 1:
                raise UserError("the parameters have several element types", mend="train those of one type")
            name = contract.free(contract.LEARNING_RATE, states.taken)
            rate = new_input(name, TensorType(dtypes.pop(), ()), TRAINING, contract.LEARNING_RATE)
            move = (self._sgd if self.optimizer == "sgd" else self._adamw)(rate, states)
            for name, gradient in gradients.items():
                value = mapping[ir.input(name)]
                states.hand_on(value, move(value, gradient))
            kept = [replace(o, value=mapping[o.value]) for o in ir.outputs if o.role is not Role.GRADIENT]
            return b.build(ir.name, [*kept, *states.outputs], ir.properties, like=ir)

    def _sgd(self, rate: Value, states: _States) -> Move:
        def move(p: Value, g: Value) -> Value:
            d = g + p * self.weight_decay if self.weight_decay else g
            if not self.momentum:
                return p - rate * d
            old = states.read(f"{p.name}_momentum", p.tensor)
            v = old * self.momentum + d
            states.hand_on(old, v)
            return p - rate * (d + v * self.momentum if self.nesterov else v)

        return move

    def _adamw(self, rate: Value, states: _States) -> Move:
        # in float64: 1 - beta^t cancels
        steps = states.read(contract.STEPS, TensorType(DType.F64, ()))
        t = steps + 1.0
        states.hand_on(steps, t)
        first, second = (
            cast(1.0 - emit1(Pow(), constant(beta, DType.F64), t), rate.dtype)
            for beta in (self.beta1, self.beta2)
        )

        def move(p: Value, g: Value) -> Value:
            mean, square = (states.read(f"{p.name}_{what}", p.tensor) for what in ("mean", "square"))
            m = mean * self.beta1 + g * (1.0 - self.beta1)
            v = square * self.beta2 + g * g * (1.0 - self.beta2)
            states.hand_on(mean, m)
            states.hand_on(square, v)
            kept = p * (1.0 - rate * self.weight_decay) if self.weight_decay else p
            return kept - m * (rate / first) / (emit1(Sqrt(), v / second) + self.epsilon)

        return move
