"""Concept activation vectors: the estimators of one direction."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LassoCV, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_sample_weight

__all__ = ["TunedCAV", "check_cav", "kind_means", "split_scope", "tune_cav"]

_N_FOLDS = 5
# These estimators take a seed from the global generator if they have none.
_SEED = 0
# From strong to weak regularisation: among equals a search takes the first.
_SEARCHES = {
    "svm": (
        LinearSVC(class_weight="balanced", dual="auto", random_state=_SEED),
        {"C": np.logspace(-5, 4, 10)},
    ),
    "ridge": (
        RidgeClassifier(class_weight="balanced"),
        {"alpha": np.logspace(4, -5, 10)},
    ),
    "logistic": (
        LogisticRegression(class_weight="balanced", max_iter=1000),
        {"C": np.logspace(-5, 4, 10)},
    ),
}
_LASSO_ALPHAS = np.logspace(0, -5, 6)
_NAMES = ("signal", "mean", *_SEARCHES, "lasso")


def check_cav(cav):
    """Validate an estimator of directions: return its name and itself."""
    if isinstance(cav, str) and cav in _NAMES:
        name = "signal" if cav == "mean" else cav
        return name, name
    is_estimator = hasattr(cav, "fit") and hasattr(cav, "get_params")
    if isinstance(cav, type) or not is_estimator:
        raise ValueError(
            f"cav must be one of {_NAMES}, a linear scikit-learn estimator, or an "
            f"array of directions; got {cav!r}."
        )
    return type(cav).__name__, cav


def kind_means(latents, scope):
    """Return the means of clean and of artifact rows, (n_strata, n_latents) each."""
    cells = scope.cells
    means = [latents[cells == cell].mean(axis=0) for cell in np.unique(cells)]
    return np.stack(means[0::2]), np.stack(means[1::2])


def split_scope(scope, seed):
    """Return shuffled folds with both kinds of every stratum; None: too few rows."""
    n_folds = min(_N_FOLDS, int(np.bincount(scope.cells).min()))
    if n_folds < 2:
        return None
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return list(folds.split(scope.cells, scope.cells))


@dataclass(frozen=True)
class TunedCAV:
    """An estimator of directions with nothing left to choose."""

    estimator: BaseEstimator | None  # None: the signal
    scale: float = 1.0  # what the latents are divided by for it

    def fit(self, latents, scope):
        """Return the direction of the rows of a scope, (n_latents,), of any length."""
        if self.estimator is None:
            clean, artifact = kind_means(latents, scope)
            return scope.weights @ (artifact - clean)
        X = _centre(latents, scope) / self.scale
        return _fit_coef(self.estimator, X, scope.concept) / self.scale


def tune_cav(cav, latents, scope, seed):
    """Choose the regularisation, if there is one to choose."""
    if not isinstance(cav, str):
        estimator = clone(cav)
        # None would draw from the global generator.
        if estimator.get_params(deep=False).get("random_state", 0) is None:
            estimator.set_params(random_state=seed)
        return TunedCAV(estimator)
    if cav == "signal":
        return TunedCAV(None)
    splits = split_scope(scope, seed)
    if splits is None:
        raise ValueError(
            f"cav={cav!r} chooses its regularisation by cross-validation and needs at "
            "least 2 samples of both kinds in each class of its scope. Mark more "
            "samples, or use cav='signal'."
        )
    X = _centre(latents, scope)
    # So that one grid serves latents of any size; it turns no direction.
    scale = float(np.sqrt(np.mean(X**2))) or 1.0
    choose = _choose_lasso if cav == "lasso" else _choose_by_accuracy
    with warnings.catch_warnings():
        # Of the weakest regularisations on the grid, which are seldom chosen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return TunedCAV(choose(cav, X / scale, scope.concept, splits), scale)


def _centre(latents, scope):
    """Return the rows of a scope, each stratum around the middle of its two means."""
    clean, artifact = kind_means(latents, scope)
    return latents - ((clean + artifact) / 2)[scope.strata]


def _fit_coef(estimator, X, concept):
    """Return the coefficients of a clone fitted to tell the concept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = clone(estimator).fit(X, concept)
    coef = getattr(fitted, "coef_", None)
    name = type(estimator).__name__
    if coef is None:
        raise ValueError(
            f"cav must be a linear estimator: {name} has no coef_ after fit. Of a "
            "pipeline or a search pass the linear estimator itself."
        )
    coef = np.asarray(coef, dtype=np.float64)
    if coef.shape not in ((X.shape[1],), (1, X.shape[1])):
        raise ValueError(
            f"cav must be a linear estimator with coef_ of shape ({X.shape[1]},) or "
            f"(1, {X.shape[1]}), a number for each latent; that of {name} has "
            f"{coef.shape}."
        )
    return coef.ravel()


def _choose_by_accuracy(cav, X, concept, splits):
    """Choose the regularisation of best balanced accuracy on held-out rows."""
    estimator, grid = _SEARCHES[cav]
    search = GridSearchCV(
        estimator, grid, scoring="balanced_accuracy", cv=splits, refit=False
    )
    search.fit(X, concept)
    return clone(estimator).set_params(**search.best_params_)


class _BalancedLasso(Lasso):
    """A lasso with weights that balance the two kinds."""

    def fit(self, X, y):
        return super().fit(X, y, sample_weight=compute_sample_weight("balanced", y))


def _choose_lasso(cav, X, concept, splits):
    """Choose the penalty of least squared error among those that leave something."""
    weights = compute_sample_weight("balanced", concept)
    search = LassoCV(alphas=_LASSO_ALPHAS, cv=splits, random_state=_SEED)
    search.fit(X, concept, sample_weight=weights)
    for alpha in _LASSO_ALPHAS[_LASSO_ALPHAS <= search.alpha_]:
        lasso = _BalancedLasso(alpha=alpha, random_state=_SEED)
        if np.any(_fit_coef(lasso, X, concept)):
            return lasso
    raise ValueError(
        f"cav={cav!r} returns a direction of zeros even at its smallest penalty, "
        f"alpha={_LASSO_ALPHAS[-1]:g}: no latent tells samples with the artifact from "
        "those without. Check concept, choose another layer, or use cav='signal'."
    )
