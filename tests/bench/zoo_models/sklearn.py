"""scikit-learn's estimators and pipelines, as skl2onnx converts them with its default options."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import to_onnx
from sklearn import (
    calibration,
    cluster,
    compose,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    gaussian_process,
    impute,
    linear_model,
    mixture,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    preprocessing,
    svm,
    tree,
)
from sklearn.pipeline import make_pipeline, make_union

from zoo_models.case import REFERENCES, SAMPLES, Case, Inputs, variants

__all__ = ["cases", "export", "make", "models"]

FEATURES, ROWS = 6, 80


def _real(x: Any) -> Any:
    return (x @ np.arange(1, 1 + FEATURES) / 4 + np.sin(x[:, 0])).astype(np.float32)


def _two(x: Any) -> Any:
    return (_real(x) > 0).astype(int)


def _three(x: Any) -> Any:
    return np.digitize(_real(x), [-1, 1])


def _named(x: Any) -> Any:
    return np.array(["low", "middle", "high"])[_three(x)]


def _several(x: Any) -> Any:
    return np.stack([_real(x), -_real(x) + x[:, 1]], 1)


def _ranked(x: Any) -> Any:
    return np.exp(_real(x) / 4)


ESTIMATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    # what is fitted, and to what
    "linear_regression": (lambda: linear_model.LinearRegression(), _real),
    "linear_regression_two_targets": (lambda: linear_model.LinearRegression(), _several),
    "ridge": (lambda: linear_model.Ridge(), _real),
    "lasso": (lambda: linear_model.Lasso(alpha=0.1), _real),
    "elastic_net": (lambda: linear_model.ElasticNet(alpha=0.1), _real),
    "bayesian_ridge": (lambda: linear_model.BayesianRidge(), _real),
    "huber": (lambda: linear_model.HuberRegressor(), _real),
    "sgd_regressor": (lambda: linear_model.SGDRegressor(random_state=0), _real),
    "poisson": (lambda: linear_model.PoissonRegressor(), _ranked),
    "gamma": (lambda: linear_model.GammaRegressor(), _ranked),
    "logistic": (lambda: linear_model.LogisticRegression(), _three),
    "logistic_binary": (lambda: linear_model.LogisticRegression(), _two),
    "logistic_names": (lambda: linear_model.LogisticRegression(), _named),
    "logistic_one_vs_rest": (
        lambda: multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        _three,
    ),
    "ridge_classifier": (lambda: linear_model.RidgeClassifier(), _three),
    "perceptron": (lambda: linear_model.Perceptron(random_state=0), _three),
    "sgd_hinge": (lambda: linear_model.SGDClassifier(random_state=0), _three),
    "sgd_log_loss": (lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0), _three),
    # scores in the hundreds: probabilities that add up to nearly nothing are divided by their sum
    "sgd_log_loss_scaled": (
        lambda: make_pipeline(
            preprocessing.StandardScaler(), linear_model.SGDClassifier(loss="log_loss", random_state=0)
        ),
        _three,
    ),
    "sgd_log_loss_binary": (lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0), _two),
    "sgd_modified_huber": (lambda: linear_model.SGDClassifier(loss="modified_huber", random_state=0), _three),
    "linear_svc": (lambda: svm.LinearSVC(random_state=0), _three),
    "linear_svr": (lambda: svm.LinearSVR(random_state=0), _real),
    "svc_rbf": (lambda: svm.SVC(), _two),
    "svc_rbf_three": (lambda: svm.SVC(), _three),
    "svc_poly": (lambda: svm.SVC(kernel="poly"), _three),
    "svc_sigmoid": (lambda: svm.SVC(kernel="sigmoid"), _two),
    "svc_linear": (lambda: svm.SVC(kernel="linear"), _three),
    "nu_svc": (lambda: svm.NuSVC(nu=0.2), _two),
    "svr_rbf": (lambda: svm.SVR(), _real),
    "svr_poly": (lambda: svm.SVR(kernel="poly", coef0=0.5), _real),
    "nu_svr": (lambda: svm.NuSVR(), _real),
    "one_class_svm": (lambda: svm.OneClassSVM(), _real),
    "mlp_classifier": (lambda: neural_network.MLPClassifier((8,), max_iter=80, random_state=0), _three),
    "mlp_binary": (lambda: neural_network.MLPClassifier((8, 8), max_iter=80, random_state=0), _two),
    "mlp_tanh": (lambda: neural_network.MLPClassifier((8,), "tanh", max_iter=80, random_state=0), _three),
    "mlp_logistic": (
        lambda: neural_network.MLPClassifier((8,), "logistic", max_iter=80, random_state=0),
        _three,
    ),
    "mlp_regressor": (lambda: neural_network.MLPRegressor(hidden_layer_sizes=(8,), random_state=0), _real),
    "naive_bayes": (lambda: naive_bayes.GaussianNB(), _three),
    "bernoulli_bayes": (lambda: naive_bayes.BernoulliNB(), _three),
    "linear_discriminant": (lambda: discriminant_analysis.LinearDiscriminantAnalysis(), _three),
    "quadratic_discriminant": (lambda: discriminant_analysis.QuadraticDiscriminantAnalysis(), _three),
    # a length that is fitted makes large numbers cancel, which float32 doesn't bear
    "gaussian_process": (
        lambda: gaussian_process.GaussianProcessRegressor(
            gaussian_process.kernels.RBF(2.0), alpha=0.1, optimizer=None
        ),
        _real,
    ),
    "pls": (lambda: cross_decomposition.PLSRegression(2), _real),
    "voting": (
        lambda: ensemble.VotingClassifier(
            [("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())],
            voting="soft",
            flatten_transform=False,
        ),
        _three,
    ),
    "voting_regressor": (
        lambda: ensemble.VotingRegressor([("a", linear_model.Ridge()), ("b", svm.SVR())]),
        _real,
    ),
    "stacking": (
        lambda: ensemble.StackingClassifier(
            [("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())]
        ),
        _three,
    ),
    "bagging": (lambda: ensemble.BaggingRegressor(linear_model.Ridge(), 3, random_state=0), _real),
    "calibrated": (lambda: calibration.CalibratedClassifierCV(linear_model.LogisticRegression(), cv=2), _two),
    "multi_output": (lambda: multioutput.MultiOutputRegressor(linear_model.Ridge()), _several),
    # steps before a model
    "scaled_mlp": (
        lambda: make_pipeline(
            preprocessing.StandardScaler(), neural_network.MLPClassifier((8,), random_state=0)
        ),
        _three,
    ),
    "scaled_svc": (lambda: make_pipeline(preprocessing.StandardScaler(), svm.SVC()), _three),
    "min_max": (
        lambda: make_pipeline(preprocessing.MinMaxScaler(), linear_model.LogisticRegression()),
        _three,
    ),
    "min_max_clipped": (
        lambda: make_pipeline(preprocessing.MinMaxScaler(clip=True), linear_model.LogisticRegression()),
        _three,
    ),
    "max_abs": (lambda: make_pipeline(preprocessing.MaxAbsScaler(), linear_model.Ridge()), _real),
    "robust": (lambda: make_pipeline(preprocessing.RobustScaler(), linear_model.LogisticRegression()), _two),
    "normalized_l1": (lambda: make_pipeline(preprocessing.Normalizer("l1"), linear_model.Ridge()), _real),
    "normalized_l2": (
        lambda: make_pipeline(preprocessing.Normalizer(), linear_model.LogisticRegression()),
        _three,
    ),
    "normalized_max": (lambda: make_pipeline(preprocessing.Normalizer("max"), linear_model.Ridge()), _real),
    "imputed": (lambda: make_pipeline(impute.SimpleImputer(), linear_model.LinearRegression()), _real),
    "imputed_marked": (
        lambda: make_pipeline(impute.SimpleImputer(add_indicator=True), linear_model.Ridge()),
        _real,
    ),
    "nearest_imputed": (lambda: make_pipeline(impute.KNNImputer(), linear_model.Ridge()), _real),
    "polynomial": (lambda: make_pipeline(preprocessing.PolynomialFeatures(3), linear_model.Ridge()), _real),
    "interactions": (
        lambda: make_pipeline(
            preprocessing.PolynomialFeatures(2, interaction_only=True), linear_model.LogisticRegression()
        ),
        _three,
    ),
    "power": (lambda: make_pipeline(preprocessing.PowerTransformer(), linear_model.Ridge()), _real),
    "quantiles": (
        lambda: make_pipeline(preprocessing.QuantileTransformer(n_quantiles=10), linear_model.Ridge()),
        _real,
    ),
    "principal": (
        lambda: make_pipeline(
            preprocessing.StandardScaler(), decomposition.PCA(3), linear_model.LogisticRegression()
        ),
        _three,
    ),
    "principal_white": (
        lambda: make_pipeline(decomposition.PCA(3, whiten=True), linear_model.LogisticRegression()),
        _three,
    ),
    "truncated": (lambda: make_pipeline(decomposition.TruncatedSVD(3), linear_model.Ridge()), _real),
    "kernel_principal": (
        lambda: make_pipeline(decomposition.KernelPCA(3, kernel="rbf"), linear_model.Ridge()),
        _real,
    ),
    "chosen": (
        lambda: make_pipeline(feature_selection.SelectKBest(k=3), linear_model.LogisticRegression()),
        _three,
    ),
    "varying": (
        lambda: make_pipeline(feature_selection.VarianceThreshold(), linear_model.LogisticRegression()),
        _three,
    ),
    "binned": (
        lambda: make_pipeline(preprocessing.KBinsDiscretizer(4, encode="ordinal"), linear_model.Ridge()),
        _real,
    ),
    "binarized": (lambda: make_pipeline(preprocessing.Binarizer(), linear_model.Ridge()), _real),
    "united": (
        lambda: make_pipeline(
            make_union(preprocessing.StandardScaler(), decomposition.PCA(2)), linear_model.Ridge()
        ),
        _real,
    ),
    "by_columns": (
        lambda: make_pipeline(
            compose.make_column_transformer(
                (preprocessing.StandardScaler(), [0, 2]),
                (preprocessing.MinMaxScaler(), [1, 3]),
                remainder="passthrough",
            ),
            linear_model.LogisticRegression(),
        ),
        _three,
    ),
    # made of steps, or of neighbours
    "tree": (lambda: tree.DecisionTreeClassifier(max_depth=3, random_state=0), _three),
    "tree_regressor": (lambda: tree.DecisionTreeRegressor(max_depth=3, random_state=0), _real),
    "forest": (lambda: ensemble.RandomForestClassifier(3, max_depth=2, random_state=0), _three),
    "extra_trees": (lambda: ensemble.ExtraTreesRegressor(3, max_depth=2, random_state=0), _real),
    "boosting": (lambda: ensemble.GradientBoostingClassifier(n_estimators=3, random_state=0), _three),
    "ada_boost": (lambda: ensemble.AdaBoostClassifier(n_estimators=3, random_state=0), _three),
    "nearest": (lambda: neighbors.KNeighborsClassifier(), _three),
    "nearest_regressor": (lambda: neighbors.KNeighborsRegressor(), _real),
    "k_means": (lambda: cluster.KMeans(3, random_state=0), _real),
    "mixture": (lambda: mixture.GaussianMixture(3, random_state=0), _real),
    "svc_probability": (lambda: svm.SVC(probability=True, random_state=0), _two),
}


def models() -> dict[str, bool]:
    return dict.fromkeys(ESTIMATORS, False)


def cases(suite: str, model: str, sized: bool) -> list[Case]:
    return variants(suite, model, sized, ("dynamic",), ("skl2onnx",))


def make(name: str) -> tuple[Any, Inputs]:
    """A fitted estimator, and samples and references like those that it was fitted to."""
    estimator, target = ESTIMATORS[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    inputs = Inputs({"X": x[:SAMPLES]}, {"X": x[-REFERENCES:]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what doesn't converge is a model, too
        return estimator().fit(x, target(x)), inputs


def export(case: Case, model: Any, inputs: Inputs, file: Path) -> Inputs:
    file.write_bytes(to_onnx(model, inputs.samples["X"][:1]).SerializeToString())
    return inputs
