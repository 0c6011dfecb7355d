"""What an explanation costs before it is run: FLOPs, bytes, memory, and how many references fit."""

from irshap.cost.formula import Binding, evaluate
from irshap.cost.nodes import GraphCost, NodeCost, Phase, cost
from irshap.cost.session import Memory, SessionModel, Settings, predict
from irshap.pipeline.stages import Stage, stages

__all__ = ["Binding", "GraphCost", "Memory", "NodeCost", "Phase", "SessionModel", "Settings", "Stage", "cost"]
__all__ += ["evaluate", "predict", "stages"]
