"""Training with priors on attributions: a training step as one ONNX file."""

from irshap.training.step import TrainingStep, evaluation, train_step

__all__ = ["TrainingStep", "evaluation", "train_step"]
