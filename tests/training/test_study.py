"""What docs/training.md tells, at small size: `tests/bench/training_study.py` runs it in full."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from places import BENCH

from irshap import demo

sys.path.insert(0, str(BENCH))

import training_study as study

pytestmark = pytest.mark.slow
IMAGES, LABELS = demo.digits()
LABELS = LABELS.astype(np.int64)


def test_a_sparse_prior_makes_global_attributions_sparser() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 12))
    labels = (x[:, 0] + x[:, 1] + 0.5 * rng.normal(size=200) > 0).astype(np.int64)
    rows = {row.way: row for row in study.table_study(x, labels, 1, train=40, held=60, epochs=40)}
    plain = rows.pop("no prior")
    assert plain.aucs.mean() > 0.8
    assert all(row.ginis.mean() > plain.ginis.mean() and row.aucs.mean() > 0.8 for row in rows.values())


def test_right_reasons_undoes_a_mark() -> None:
    without, with_prior = study.mark_study(IMAGES, LABELS, 1, train=280, epochs=25, weights=(0.0, 0.003))
    fooled, mended = float(without[1].mean()), float(with_prior[1].mean())
    assert without[2].mean() > 0.95, "the mark tells all"
    assert mended > fooled + 0.1


def test_total_variation_makes_maps_smoother() -> None:
    plain, smooth = study.smooth_study(IMAGES, LABELS, 1, train=280, epochs=20, weights=(0.0, 0.003))
    assert smooth.roughness.mean() < 0.95 * plain.roughness.mean()
    assert smooth.accuracy.mean() > plain.accuracy.mean() - 0.05


def test_the_area_under_the_curve() -> None:
    assert study.auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == 0.75
