"""The block of docs/scale.md for Spark, on local Spark: attributions equal those of `Explainer`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explaining import model, saved, table
from places import ROOT

import irshap

pytest.importorskip("pyarrow")
sql = pytest.importorskip("pyspark.sql")
pytestmark = pytest.mark.slow


def test_the_pages_block_gives_the_explainers_attributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    block = page.split("```python with spark\n")[1].split("```")[0]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    x, features = table(100), [f"f{i}" for i in range(6)]
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = builder.getOrCreate()
    try:
        rows = [(i, *map(float, row)) for i, row in enumerate(x)]
        schema = "row long, " + ", ".join(f"{name} float" for name in features)
        frame = spark.createDataFrame(rows, schema).repartition(3)
        names: dict[str, Any] = {"frame": frame, "features": features, "shared": str(saved(tmp_path))}
        exec(compile(block, "docs/scale.md", "exec"), names)
        found = sorted(names["explained"].collect())
    finally:
        spark.stop()
    expected = irshap.Explainer(model())(x)
    assert [row[0] for row in found] == list(range(100))
    np.testing.assert_allclose([row[1] for row in found], expected.target_values, rtol=1e-6)
    np.testing.assert_allclose([row[2] for row in found], expected.values, atol=1e-6)
