"""A model of ONNX Runtime's session and of malloc: what memory a lowered file takes.

This is the door: nothing outside this folder imports what stands behind it.  `SessionModel.of` schedules a
graph once, its `predict` simulates that schedule at numbers of samples and references.
"""

from irshap.cost.session.memory import Memory, SessionModel, Settings, predict
from irshap.cost.session.versions import MODELLED, version_note

__all__ = ["MODELLED", "Memory", "SessionModel", "Settings", "predict", "version_note"]
