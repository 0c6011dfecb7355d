"""What an explanation costs before it is run: FLOPs, bytes, memory, and how many references fit."""

from irshap.cost.formula import Binding, evaluate, line, total
from irshap.cost.nodes import GraphCost, NodeCost, Part, cost
from irshap.cost.session.memory import Memory, Settings, predict
from irshap.cost.session.schedule import Schedule, schedule
from irshap.pipeline.stages import Stage, explained, stages

__all__ = ["Binding", "GraphCost", "Memory", "NodeCost", "Part", "Schedule", "Settings", "Stage", "cost"]
__all__ += ["evaluate", "explained", "line", "predict", "schedule", "stages", "total"]
