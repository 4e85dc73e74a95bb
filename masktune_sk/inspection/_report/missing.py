"""What a report leaves out, and how to have it."""

from .methods import find_method

__all__ = ["find_missing"]


def find_missing(inputs, facts):
    """Say what is left out, and why.

    Parameters
    ----------
    inputs : Inputs
        What the report is given.
    facts : dict
        See `collect`.

    Returns
    -------
    missing : dict of str to list of str
        By section.
    """
    missing = {
        "diagnosis": _diagnosis(inputs),
        "accuracy": _baselines(inputs),
    }
    if inputs.method is None:
        name = type(inputs.estimator).__name__
        none_of_ours = f"{name} is none of this package's methods:"
        missing["intervention"] = [f"{none_of_ours} there is no net before and after."]
        missing["training"] = [f"{none_of_ours} its training is not known."]
    elif not facts["training"]["rows"]:
        missing["training"] = ["No training curves: the net came without a history."]
    if not facts["abstention"]["classifiers"]:
        missing["abstention"] = [
            "No risk-coverage curves: the classifier has no probabilities."
        ]
    if facts["certificate"] is None:
        missing["certificate"] = [
            "No certificate: nothing has calibrated a reject threshold. "
            "calibrate(X, y, max_risk=0.05), on samples that nothing has seen, makes "
            "one."
        ]
    return missing


def _diagnosis(inputs):
    if inputs.diagnosis is None:
        return [
            "No diagnosis was given. diagnosis=diagnose_shortcut(X_train, y_train) "
            "tells whether the training data has a shortcut."
        ]
    if inputs.diagnosis is True:
        return [
            "This is a diagnosis of the samples of this report. The shortcut that was "
            "learned is that of the training data: diagnose_shortcut(X_train, y_train)."
        ]
    return []


def _baselines(inputs):
    """Ask for the trainings that tell what the intervention did by itself."""
    method = inputs.method
    if method is None or method.is_control:
        return []
    if method.control is None:
        if inputs.compare:
            return []
        return [
            f"Ordinary training is missing: {method.name} keeps no such net. compare={{"
            '"ERM": clf}, the same net fitted by itself, puts it into the tables.'
        ]
    others = [find_method(clf, inputs.X)[0] for clf in inputs.compare.values()]
    if any(other is not None and other.is_control for other in others):
        return []
    name, value = method.control
    return [
        "ERM continued is missing, the same training for as many epochs without the "
        f"intervention; it tells what the epochs do alone. Fit a clone with "
        f'{name}="{value}", and pass compare={{"ERM continued": clf}}.'
    ]
