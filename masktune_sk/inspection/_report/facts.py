"""The facts of a report: numbers and texts, in dicts and lists."""

import platform
import re
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from inspect import isclass, isroutine, signature

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator

from .._diagnose import diagnose_shortcut
from .intervention import measure_intervention
from .performance import measure_abstention, measure_accuracy, predict_all

__all__ = ["collect", "describe"]

PACKAGES = (
    "masktune_sk",
    "torch",
    "torchvision",
    "skorch",
    "scikit-learn",
    "numpy",
    "scipy",
)
# Of a net: what only says what it prints.
UNTOLD = {"verbose", "_params_to_validate", "_kwargs"}
LONGEST = 160
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def collect(inputs, title):
    """Find everything out that a report tells.

    Parameters
    ----------
    inputs : Inputs
        What the report is given.
    title : str or None
        Its title.

    Returns
    -------
    facts : dict
        Numbers and texts.
    predictions : list of Predictions
        Of every classifier; the estimator's is the last.
    seen : dict
        Arrays, and a layer report, that pictures are drawn of, and the diagnosis in
        HTML.
    """
    diagnosis = inputs.diagnosis
    if diagnosis is True:
        X = inputs.X if inputs.view is None else inputs.view
        diagnosis = diagnose_shortcut(X, inputs.y, random_state=inputs.seed)
    predictions = predict_all(inputs)
    intervention, seen = measure_intervention(inputs)
    core = None if inputs.method is None else inputs.method.core
    facts = {
        "title": title or f"{inputs.name}: what it learned",
        "created": datetime.now(UTC).date().isoformat(),
        "estimator": _describe_estimator(inputs),
        "data": _describe_data(inputs, core),
        "diagnosis": _describe_diagnosis(diagnosis),
        "accuracy": measure_accuracy(inputs, predictions),
        "intervention": intervention,
        "abstention": measure_abstention(inputs, predictions),
        "certificate": _describe_certificate(inputs.selective),
        "training": _describe_training(core),
        "parameters": _describe_parameters(inputs, core),
        "versions": {"Python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        "seeds": _describe_seeds(inputs, core),
    }
    if diagnosis is not None:
        seen = seen | {"diagnosis": diagnosis._repr_html_()}
    return facts, predictions, seen


def _describe_estimator(inputs):
    method, use, limits = inputs.method, "", ""
    if method is not None and method.is_control:
        use = "A control: trained for as long, without the intervention."
    elif method is not None:
        use, limits = method.use, method.limits
    return {
        "name": inputs.name,
        "class": type(inputs.estimator).__name__,
        "use": use,
        "limits": limits,
    }


def _describe_data(inputs, core):
    data = {
        "n_samples": inputs.n_samples,
        "classes": dict(
            zip(inputs.classes.names, inputs.classes.counts.tolist(), strict=True)
        ),
        "groups": None,
        "item_shape": None,
        "n_train": None,
        "holdout_accuracy": None,
    }
    if inputs.groups is not None:
        data["groups"] = dict(
            zip(inputs.parts.names, inputs.parts.counts.tolist(), strict=True)
        )
    if core is None:
        return data
    return data | {
        "item_shape": list(core.input_shape_),
        "n_train": len(core.train_indices_),
        "holdout_accuracy": core.holdout_accuracy_,
    }


def _describe_diagnosis(diagnosis):
    if diagnosis is None:
        return None
    return {
        "has_shortcut": bool(diagnosis.has_shortcut),
        "verdict": diagnosis.verdict,
        "recommendation": diagnosis.recommendation,
        "evidence": [plain(asdict(row)) for row in diagnosis.evidence],
    }


def _describe_certificate(selective):
    certificate = getattr(selective, "certificate_", None)
    return None if certificate is None else plain(certificate.as_dict())


def _describe_training(core):
    """Return the rows of the history, and the seconds of all."""
    if core is None:
        return None
    rows = [
        {
            name: row[name]
            for name in (
                "stage",
                "epoch",
                "lr",
                "train_loss",
                "valid_loss",
                "valid_acc",
            )
            if row.get(name) is not None
        }
        for row in core.history_
    ]
    return {
        "rows": plain(rows),
        "seconds": float(sum(row.get("dur") or 0 for row in core.history_)),
        "precision": core.precision_,
        "n_threads": core.n_threads_,
        "device": str(core.net_.device or "cpu"),
    }


def _describe_parameters(inputs, core):
    """Return tables of parameters, by what they are parameters of."""
    tables = {type(inputs.estimator).__name__: _parameters_of(inputs.estimator)}
    if core is None:
        return {name: table for name, table in tables.items() if table}
    tables[type(core).__name__] = _parameters_of(core)
    net = core.net_
    module = net.module_
    n_weights = sum(p.numel() for p in module.parameters())
    tables["The net that predicts"] = {
        name: {"value": describe(value), "default": False}
        for name, value in (
            {"module": type(module), "weights": n_weights}
            | {
                name: value
                for name, value in net.get_params(deep=False).items()
                if name not in UNTOLD and name != "module" and value is not None
            }
        ).items()
    }
    return tables


def _parameters_of(estimator):
    if not isinstance(estimator, BaseEstimator):
        return {}
    known = signature(type(estimator).__init__).parameters
    return {
        name: {
            "value": describe(value),
            "default": _is_default(value, known.get(name)),
        }
        for name, value in estimator.get_params(deep=False).items()
    }


def _is_default(value, parameter):
    """Tell whether a parameter is as it comes, where that can be told."""
    default = getattr(parameter, "default", parameter)
    return value is default or (
        isinstance(value, bool | int | float | str)
        and type(value) is type(default)
        and value == default
    )


def _describe_seeds(inputs, core):
    seeds = {"report, random_state": describe(inputs.random_state)}
    if core is not None:
        seeds["estimator, random_state"] = describe(core.random_state)
    elif hasattr(inputs.estimator, "random_state"):
        seeds["estimator, random_state"] = describe(inputs.estimator.random_state)
    return seeds


def describe(value):
    """Say in a line what a parameter is; the same line in every run."""
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim:
        text = f"array of shape {tuple(value.shape)}, {value.dtype}"
    elif isinstance(value, np.generic):
        text = repr(value.item())
    elif isclass(value) or isroutine(value):
        text = f"{value.__module__}.{value.__qualname__}"
    elif isinstance(value, FrozenEstimator):
        text = f"FrozenEstimator({describe(value.estimator)})"
    elif isinstance(value, list | tuple):
        inner = ", ".join(map(describe, value))
        text = f"[{inner}]" if isinstance(value, list) else f"({inner})"
    elif isinstance(value, torch.nn.Module) or hasattr(value, "get_params"):
        text = f"{type(value).__name__}(...)"
    else:
        text = ADDRESS.sub("", repr(value))
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def plain(value):
    """Return numbers and containers as Python has them, keys as texts."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value
