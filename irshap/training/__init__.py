"""Training with priors on attributions: a training step as one ONNX file, and what runs it."""

from irshap.training.step import TrainingStep, evaluation, train_step
from irshap.training.trainer import Settings, Trainer

__all__ = ["Settings", "Trainer", "TrainingStep", "evaluation", "train_step"]
