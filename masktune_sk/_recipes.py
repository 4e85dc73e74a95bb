"""Recipes: the parameters of published codes, where they are not our defaults."""

__all__ = ["OFFICIAL_MASKTUNE"]

#: Parameters of the official code's recipe, to splat:
#: ``MaskTuneClassifier(net, **OFFICIAL_MASKTUNE)``. They set what that code does
#: otherwise: masks from the best epoch, later rounds that look at the original images,
#: the second softmax. What stays ours: empty masks fall back, `predict_with_reject`
#: gives the labels of `predict` (the code: of the product's largest entry, which
#: differs on a few samples of low score), and coverage 0.9 accepts 9 of 10 calibration
#: samples (the code: all 10, by an index that is off by one).
OFFICIAL_MASKTUNE = {
    "saliency": "xgradcam",
    "saliency_target": "predicted",
    "mask_threshold": 2.0,
    "threshold_rule": "sigma",
    "mask_fill": 0.0,
    "masking": "saliency",
    "n_mask_rounds": 1,
    "accumulate_masks": False,
    "mask_from": "best",
    "refit_epochs": 1,
    "refit_lr": None,
    "refit_optimizer": "continue",
    "freeze_norm": False,
    "rejection": "product_softmax",
}
