"""Mints tests/fixtures/sklearn/: scikit-learn's models as skl2onnx converts them with its default options.

Run with scikit-learn, skl2onnx and pandas installed; tests need the files alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import (
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Ridge,
    SGDClassifier,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "sklearn"


def fitted() -> dict[str, tuple[Any, Any]]:
    """Models by name, with the samples that they were fitted to."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)).astype(np.float32)
    score = x @ rng.normal(size=6)
    three, two = np.digitize(score, [-1, 1]), (score > 0).astype(int)
    real = (score + np.sin(x[:, 0])).astype(np.float32)
    wanted = {
        "mlp_classifier": (
            make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=80, random_state=0)),
            three,
        ),
        "mlp_binary": (
            make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=80, random_state=0)),
            two,
        ),
        "mlp_regressor": (
            make_pipeline(
                MinMaxScaler(), MLPRegressor(hidden_layer_sizes=(8,), activation="tanh", random_state=0)
            ),
            real,
        ),
        "logistic": (make_pipeline(RobustScaler(), LogisticRegression()), three),
        "logistic_binary": (make_pipeline(StandardScaler(), LogisticRegression()), two),
        "logistic_strings": (LogisticRegression(), np.array(["low", "middle", "high"])[three]),
        "imputed": (make_pipeline(SimpleImputer(), LinearRegression()), real),
        "normalized_l2": (make_pipeline(Normalizer(), Ridge()), real),
        "normalized_l1": (make_pipeline(Normalizer("l1"), Ridge()), real),
        "normalized_max": (make_pipeline(Normalizer("max"), Ridge()), real),
        "polynomial": (make_pipeline(PolynomialFeatures(2), StandardScaler(), Ridge()), real),
        "components": (make_pipeline(StandardScaler(), PCA(3), LogisticRegression()), three),
        "two_targets": (Ridge(), np.stack([real, -real], 1)),
        "sgd": (
            make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", alpha=0.1, random_state=0)),
            three,
        ),
        "bayes": (GaussianNB(), three),
        "quadratic": (QuadraticDiscriminantAnalysis(), three),
        "binarized": (make_pipeline(Binarizer(), Ridge()), real),
        "forest": (RandomForestClassifier(3, max_depth=2, random_state=0), three),
        "boosting": (GradientBoostingRegressor(n_estimators=3, max_depth=2, random_state=0), real),
        "svc": (make_pipeline(StandardScaler(), SVC()), two),
        "svc_three": (make_pipeline(StandardScaler(), SVC()), three),
        "svc_probability": (SVC(probability=True, random_state=0), two),
    }
    for kernel in ("rbf", "poly", "linear", "sigmoid"):
        wanted[f"svr_{kernel}"] = (make_pipeline(StandardScaler(), SVR(kernel=kernel, coef0=0.5)), real)
    return {name: (model.fit(x, y), x) for name, (model, y) in wanted.items()}


def of_columns() -> dict[str, Any]:
    """Models of a table with numbers and categories, an input for each column."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "a": rng.normal(size=60).astype(np.float32),
            "b": rng.normal(size=60).astype(np.float32),
            "c": rng.integers(0, 4, 60),
            "d": np.array(["u", "v", "w"])[rng.integers(0, 3, 60)],
        }
    )
    classes = np.digitize(table["a"] + table["c"] / 2, [0.3, 1.2])
    real = make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]
    kinds = {"a": FloatTensorType, "b": FloatTensorType, "c": Int64TensorType, "d": StringTensorType}
    one_hot = [("n", *real), ("c", OneHotEncoder(), ["c"]), ("d", OneHotEncoder(), ["d"])]
    ordinal = [("n", *real), ("c", OrdinalEncoder(), ["c"]), ("d", OrdinalEncoder(), ["d"])]
    found = {}
    for name, columns in (("one_hot", one_hot), ("ordinal", ordinal)):
        model = make_pipeline(ColumnTransformer(columns), LogisticRegression()).fit(table, classes)
        types = [(column, kind([None, 1])) for column, kind in kinds.items()]
        found[name] = convert_sklearn(model, initial_types=types)
    return found


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    models = {name: to_onnx(model, x[:1]) for name, (model, x) in fitted().items()} | of_columns()
    for name, model in models.items():
        (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())
        print(f"{name}: {model.ByteSize()} bytes")
