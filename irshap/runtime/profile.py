"""What ONNX Runtime says of its own runs."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irshap.runtime.arrays import Arrays
from irshap.runtime.bfloat16 import run
from irshap.runtime.explainer import ExplainedModel, content_of, session_of

__all__ = ["node_bytes"]


def node_bytes(
    model: ExplainedModel, feeds: Sequence[Arrays], providers: Sequence[Any] | None = None
) -> list[dict[str, int]]:
    """For each feed the bytes of what each node returns, by the node's name; of a loop's body in one trip.

    Args:
        model: an explained model.
        feeds: what it is given, run after run.
    """
    content, where = content_of(model)
    chosen = ["CPUExecutionProvider"] if providers is None else providers
    with tempfile.TemporaryDirectory() as folder:
        session = session_of(content, where, chosen, 1, str(Path(folder) / "profile"))
        names = [v.name for v in session.get_outputs()]
        for feed in feeds:
            run(session, names, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ends = sorted(e["ts"] + e["dur"] for e in events if e.get("name") == "model_run")
    found: list[dict[str, int]] = [defaultdict(int) for _ in feeds]
    for event in events:
        size = event.get("args", {}).get("output_size")
        if size is not None and event.get("cat") == "Node":
            place = min(sum(event["ts"] > end for end in ends), len(feeds) - 1)
            found[place][event["name"]] = max(found[place][event["name"]], int(size))
    return found
