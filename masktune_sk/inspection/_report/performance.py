"""How right the classifiers are, by group, and what they would rather not say."""

from dataclasses import dataclass

import numpy as np

from ...data import as_array
from ...metrics import aurc_loss, proportion_interval, risk_at_coverage
from ...metrics._group import find_hits
from ...metrics._scorers import find_behind, predict_with_score

__all__ = [
    "COVERAGES",
    "Predictions",
    "measure_abstention",
    "measure_accuracy",
    "predict_all",
]

#: Shares accepted in the table of risks.
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)


@dataclass(frozen=True)
class Predictions:
    """What one classifier predicts for the samples of a report.

    Attributes
    ----------
    name : str
        Of the column.
    labels : ndarray of shape (n_samples,)
        Predicted labels.
    scores : ndarray of shape (n_samples,) or None
        Selection scores; None if it has no probabilities.
    """

    name: str
    labels: np.ndarray
    scores: np.ndarray | None


def predict_all(inputs):
    """Predict by every classifier: the nets before, the estimator, the others."""
    predictions = []
    if inputs.method is not None:
        for name, net in inputs.method.earlier().items():
            proba = inputs.method.proba(net, inputs.view)
            labels = inputs.method.core.classes_[proba.argmax(axis=1)]
            predictions.append(Predictions(name, labels, proba.max(axis=1)))
    others = inputs.compare | {inputs.name: inputs.estimator}
    for name, classifier in others.items():
        predictions.append(Predictions(name, *_predict(classifier, inputs.X)))
    return predictions


def _predict(classifier, X):
    """Return labels, and scores if the classifier has any."""
    if find_behind(classifier, X, "selection_score") or hasattr(
        classifier, "predict_proba"
    ):
        labels, scores = predict_with_score(classifier, X)
    else:
        labels, scores = classifier.predict(X), None
    return np.asarray(as_array(labels)), scores


def measure_accuracy(inputs, predictions):
    """Count who is right, in all and in each group.

    Returns
    -------
    accuracy : dict
        "by", "confidence", and "classifiers": by name the numbers of "all" samples and
        of each part ("parts"), the "mean" over parts and the "worst" part.
    """
    parts, classifiers = inputs.parts, {}
    for prediction in predictions:
        right = find_hits(inputs.y, prediction.labels)
        numbers = count_parts(parts, right, np.ones_like(right), inputs.confidence)
        accuracies = {name: cell["share"] for name, cell in numbers["parts"].items()}
        worst = min(accuracies, key=accuracies.get)
        classifiers[prediction.name] = numbers | {
            "mean": float(np.mean(list(accuracies.values()))),
            "worst": {"name": worst, "share": accuracies[worst]},
        }
    return {
        "by": parts.by,
        "confidence": inputs.confidence,
        "classifiers": classifiers,
    }


def count_parts(parts, has, among, confidence):
    """Count what share has a property, among some of the samples, by part.

    Returns
    -------
    numbers : dict
        "all" and "parts", by name: "n" and "count", "share" (None of no sample), and
        the interval's ends "low" and "high".
    """
    n = np.bincount(parts.codes[among], minlength=len(parts.names))
    count = np.bincount(parts.codes[among & has], minlength=len(parts.names))
    n, count = np.append(n, n.sum()), np.append(count, count.sum())
    low, high = proportion_interval(count, n, confidence=confidence)
    cells = [
        {
            "n": int(n[i]),
            "count": int(count[i]),
            "share": float(count[i] / n[i]) if n[i] else None,
            "low": float(low[i]),
            "high": float(high[i]),
        }
        for i in range(len(n))
    ]
    return {"all": cells[-1], "parts": dict(zip(parts.names, cells, strict=False))}


def measure_abstention(inputs, predictions):
    """Tell what abstaining buys.

    Returns
    -------
    abstention : dict
        "classifiers": by name "aurc" and "risk_at_coverage"; "threshold", what decides
        whether a sample is accepted: "coverage" and "accuracy" of the accepted, by
        part, or "why_not".
    """
    classifiers = {}
    for prediction in predictions:
        if prediction.scores is None:
            continue
        arrays = inputs.y, prediction.labels, prediction.scores
        classifiers[prediction.name] = {
            "aurc": aurc_loss(*arrays),
            "risk_at_coverage": {
                f"{coverage:g}": risk_at_coverage(*arrays, coverage=coverage)
                for coverage in COVERAGES
            },
        }
    return {
        "classifiers": classifiers,
        "threshold": _at_threshold(inputs, predictions[-1]),
    }


def _at_threshold(inputs, prediction):
    """Count what the estimator's own threshold accepts."""
    if inputs.selective is None:
        return {"why_not": "The estimator has no reject threshold."}
    thresholds = inputs.selective.reject_threshold_
    groups = inputs.groups if isinstance(thresholds, dict) else None
    try:
        threshold = inputs.selective._threshold_of(inputs.X, None, None, groups)
    except ValueError as error:
        return {"why_not": str(error)}
    accepted = prediction.scores >= threshold
    right = find_hits(inputs.y, prediction.labels)
    every = np.ones_like(accepted)
    return {
        "value": thresholds if isinstance(thresholds, dict) else float(thresholds),
        "coverage": count_parts(inputs.parts, accepted, every, inputs.confidence),
        "accuracy": count_parts(inputs.parts, right, accepted, inputs.confidence),
    }
