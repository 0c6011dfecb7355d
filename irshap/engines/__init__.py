"""Other programs that run ONNX files, to see how far they are from ONNX Runtime on a CPU.

Each is imported, or started, when it is asked for; irshap depends on none of them.
"""

from irshap.engines.base import Engine, EngineFailed
from irshap.engines.compare import Distance, distances, own_results
from irshap.engines.javascript import Node, Web
from irshap.engines.openvino import OpenVINO
from irshap.engines.reference import Reference

__all__ = ["ENGINES", "Distance", "Engine", "EngineFailed", "distances", "own_results"]

ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (OpenVINO, Web, Node, Reference)}
"""Every engine by its name."""
