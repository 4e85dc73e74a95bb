"""What stands between the nets before and after: masks, branches or a concept."""

import numpy as np

from .methods import DeNetDMMethod, MaskTuneMethod, RRClArCMethod

__all__ = ["measure_intervention"]

# Layers are reported of so many samples at most: decoding takes the time.
N_DECODED = 500


def measure_intervention(inputs):
    """Find out what was done to the net.

    Parameters
    ----------
    inputs : Inputs
        What the report is given.

    Returns
    -------
    intervention : dict or None
        "kind" ("masks", "branches" or "concept") and its numbers; None if the estimator
        is none of this package.
    seen : dict
        Arrays, and a layer report, to draw.
    """
    for kind, measure in MEASURES.items():
        if isinstance(inputs.method, kind):
            return measure(inputs)
    return None, {}


def _measure_masks(inputs):
    """Count what the masks hide of these samples, and hid in training."""
    core, view = inputs.method.core, inputs.view
    hidden = np.empty(len(view))
    grid = view.shape[2:] or view.shape[1:]
    where = np.zeros((len(inputs.parts.names), *grid))
    size = view.source.block_size
    for start in range(0, len(view), size):
        rows = np.arange(start, min(start + size, len(view)))
        masks = core.mask(view[rows])[1]
        hidden[rows] = 1 - masks.reshape(len(rows), -1).mean(axis=1)
        codes = inputs.parts.codes[rows]
        for code in np.unique(codes):
            where[code] += (~masks[codes == code]).sum(axis=0)
    counts = inputs.parts.counts
    where /= counts.reshape(-1, *[1] * (where.ndim - 1))
    facts = {
        "kind": "masks",
        "masking": core.masking,
        "feature_names": _feature_names(core),
        "training": {
            "masked_fraction": float(core.masked_fraction_),
            "n_empty_masks": int(core.n_empty_masks_),
            "n_train": len(core.train_indices_),
            "n_mask_rounds": int(core.n_mask_rounds),
        },
        "hidden": {
            "all": float(hidden.mean()),
            "classes": _means(inputs.classes, hidden),
            "parts": _means(inputs.parts, hidden),
        },
    }
    return facts, {"where": where}


def _feature_names(core):
    names = getattr(core, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _means(parts, values):
    means = np.bincount(parts.codes, values) / parts.counts
    return dict(zip(parts.names, means.tolist(), strict=True))


def _measure_branches(inputs):
    """Tell how far the branches came apart, and what their layers know."""
    core = inputs.method.core
    apart = core.separation_
    facts = {
        "kind": "branches",
        "debiased_branch": core.debiased_branch_,
        "given": core.role_scores_ is None,
        "role_scores": core.role_scores_,
        "separation": {
            name: apart[name]
            for name in (
                "disagreement",
                "accuracy",
                "balanced_accuracy",
                "biased_wrong",
                "starved",
            )
        },
        "conflict_score_above_half": float(np.mean(core.conflict_score_ > 0.5)),
        "layers": None,
    }
    random = np.random.RandomState(inputs.seed)
    rows = np.sort(random.permutation(inputs.n_samples)[:N_DECODED])
    groups = None if inputs.groups is None else inputs.groups[rows]
    try:
        report = core.layer_report(
            inputs.view[rows], inputs.y[rows], groups, random_state=inputs.seed
        )
    except ValueError as error:
        # Too few samples, or nothing to decode.
        return facts | {"layers_why_not": str(error)}, {}
    facts["layers"] = {
        "rows": report.rows,
        "chance": report.chance,
        "n_samples": report.n_samples,
    }
    return facts, {"layers": report}


def _measure_concept(inputs):
    """Tell how the concept was found, and what it is worth to the logits."""
    core = inputs.method.core
    concept = core.concept_
    facts = {
        "kind": "concept",
        "method": core.method,
        "layer": core.layer_.name,
        "penalty_weight": core.penalty_weight_,
        "concepts": None,
        "classes": [str(label) for label in core.classes_.tolist()],
        "artifact_relevance_before": core.artifact_relevance_before_,
        "artifact_relevance_after": core.artifact_relevance_after_,
    }
    for name in ("sensitivity", "tcav"):
        for when in ("before", "after"):
            values = getattr(core, f"{name}_{when}_")
            if values is not None:
                values = np.atleast_2d(values).tolist()
            facts[f"{name}_{when}"] = values
    if concept is not None and concept.gap is not None:
        facts["concepts"] = [
            {
                "gap": float(concept.gap[i]),
                "auc": float(concept.auc[i]),
                "n_concept": int(concept.n_concept[i]),
                "n_clean": int(concept.n_clean[i]),
            }
            for i in range(len(concept.gap))
        ]
    return facts, {}


MEASURES = {
    MaskTuneMethod: _measure_masks,
    DeNetDMMethod: _measure_branches,
    RRClArCMethod: _measure_concept,
}
