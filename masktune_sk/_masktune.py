"""MaskTune: hide what the net found, and let it look again."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from ._base import BaseDebiasedClassifier
from .exceptions import EmptyMaskWarning
from .masking import (
    MaskedSource,
    apply_masks,
    check_threshold,
    fill_values,
    resize_maps,
    scale_maps,
    threshold_maps,
)
from .saliency import METHODS, BaseSaliency, compute_maps, resolve_saliency
from .training import build_net, refit

__all__ = ["MaskTuneClassifier"]


class MaskTuneClassifier(BaseDebiasedClassifier):
    """MaskTune: hide what the net looks at, and let it look again.

    Trains a net as it is configured (ERM), computes a saliency map of each training
    sample, masks what the net looked at most, and trains for one more epoch on the
    masked samples, which forces it to explore other features [1]_. No label of the
    shortcut is needed. Both nets are kept: where they disagree, the estimator is better
    off to abstain.

    Use it where ERM leans on something *local* that can be covered: a watermark, a
    marker, a background corner, a leaking column. It does not help against a shortcut
    in colour, texture or tone of the whole image, and on clean data it loses a little.
    Accuracy on validation data with the same shortcut prefers the shortcut, so it
    cannot choose `mask_threshold`; `metrics.masked_consistency_scorer` can.

    Parameters
    ----------
    estimator : skorch.NeuralNetClassifier, FrozenEstimator or None, default=None
        The net. It is cloned and never touched. Its epochs, optimizer, learning rate,
        schedule, callbacks and device are those of the ERM stage.
        ``FrozenEstimator(fitted_net)`` skips ERM and starts from the weights of that
        net; because it has seen its training data, scores of a cross-validation over
        the same data are optimistic. None: `masktune_sk.modules.default_net` for the
        shape of X.
    saliency : str, BaseSaliency or callable, default="auto"
        How to look at the net.

        - "xgradcam", "gradcam", "gradcam++", "layercam": maps of one layer of a net
          for images.
        - "input_gradient", "input_x_gradient": gradients with respect to the input.
        - "auto": XGrad-CAM, centred Grad-CAM where the layer has negative outputs, or
          input x gradient where there is no layer with a spatial output.
        - An instance of `BaseSaliency`, or a function ``f(net, X, target) -> maps``.
    target_layer : str, default=None
        Dotted name of the layer whose output is explained, as in
        ``module.named_modules()``. None: the last one to run that has a spatial output
        and a gradient there.
    saliency_target : {"predicted", "true"}, default="predicted"
        Explain the class that the net predicts or, in `fit`, the true one.
    mask_threshold : float, default=2.0
        How salient a position must be to be hidden; a smaller one hides more under
        "sigma" and "value", less under "quantile". Search it.
    threshold_rule : {"sigma", "quantile", "value"}, default="sigma"
        What `mask_threshold` means: standard deviations above the mean of the map's
        positive part; the fraction to hide; or a value of the map scaled to [0, 1].
    mask_fill : float, array-like of shape (n_channels,) or "mean", default=0.0
        What is put where the mask hides, in the units of X; "mean": the mean of the
        training data. One for all, or one for each channel (of vectors: each feature).
    masking : {"saliency", "random", "none"}, default="saliency"
        "random" moves each mask to a random place, and "none" hides nothing and trains
        for the same epochs: the two controls of every experiment.
    n_mask_rounds : int, default=1
        How often to look, mask and refit.
    accumulate_masks : bool, default=True
        In later rounds look at the masked samples and hide more; False: look at the
        original ones and hide only what is found there.
    mask_from : {"last", "best"}, default="last"
        Look at the net after the last epoch, or after the epoch with the best accuracy
        on the hold-out (the refit starts from the last all the same). `erm_net_` is
        that net.
    refit_epochs : int, default=1
        Epochs on masked data in each round; 0 predicts as ERM.
    refit_lr : float, default=None
        Learning rate of the refit; None: the rate ERM ended with. A large one forgets
        more of what ERM learned.
    refit_optimizer : {"continue", "fresh"}, default="continue"
        Carry the optimizer's moments over from ERM, or start them anew.
    freeze_norm : bool or "auto", default="auto"
        In the refit, normalise by the statistics that batch normalisation has from ERM,
        and leave them. New ones re-centre the net on masked samples, so that its
        weights need not unlearn the shortcut. Try it on images where no training sample
        contradicts the shortcut; the refit is less stable then, and may need a smaller
        rate. "auto": where vectors are masked, as a column that is hidden in most rows
        would have next to no spread, and decide all when it is back.
    augment : callable, default=None
        Applied to the tensor of each training sample in both trainings, for instance
        a torchvision v2 transform that keeps the shape. In the refit it comes after
        the mask.
    validation_fraction : float in [0, 1), default=0.2
        Share of each class that is held out: skorch's validation set, and the samples
        that calibrate the reject threshold. At least one sample of each class. With 0
        there is neither, and a `train_split` of the net's own is used.
    coverage : float in (0, 1], default=0.9
        Share of samples that `predict_with_reject` accepts, by default.
    rejection : str, default="product"
        The selection score: "product", "product_softmax", "agreement", "refit", "erm",
        "margin" or "entropy", see `masktune_sk.rejection.selection_scores`.
    memory : str, path or joblib.Memory, default=None
        A folder where the ERM stage and its maps are kept and found again by any other
        fit on the same data with the same net, seed and parameters of that stage: a
        search over thresholds trains ERM once a fold, and one that was killed goes on.
        On a shared folder, by other machines too. Weights of a module instance count,
        not its identity; so does the code of your own classes. Nothing is kept with
        ``random_state=None``. Callbacks are not called for what is found. Entries are
        pickles: use a folder that only you can write to.
    precision : {"float32", "bf16", "auto"}, default="float32"
        "bf16" runs every stage, predictions included, in bfloat16 (under autocast, with
        weights in float32), images and convolutions in the channels-last layout and the
        optimizer's step fused where it can be. "auto": that where the processor or the
        GPU has the instructions for it. Faster; the last digits differ.
    store_maps : bool, default=False
        Keep the maps of the last round as `maps_`.
    random_state : int, RandomState or None, default=None
        Seeds the hold-out, both trainings and random masks. An int gives the same
        result in every fit (for one number of threads and the same versions), and
        leaves the global generators as they were.
    verbose : int, default=0
        1: a progress bar for each stage and a closing line. 2: skorch's table of
        epochs in place of the bars of the trainings.

    Attributes
    ----------
    n_features_in_ : int
        Number of features, or of channels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if X is a data frame with string names.
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    input_shape_ : tuple of int
        Shape of one sample.
    erm_net_ : skorch.NeuralNetClassifier
        The net before masking.
    saliency_ : BaseSaliency
        The saliency method in use.
    layer_ : Layer or None
        The layer that is explained: name, layout and grid.
    mask_fill_ : ndarray of shape (1,) or (n_channels,)
        The values put in.
    masked_fraction_ : float
        Mean share of positions hidden in the last round.
    n_empty_masks_ : int
        Training samples of the last round of which the threshold rule hid nothing by
        itself; most of them are then masked by the fall-back (see Notes).
    maps_ : ndarray of shape (n_train, map_height, map_width) or (n_train, n_features)
        Maps of the training rows; only with `store_maps`.
    train_indices_ : ndarray of int, shape (n_train,)
        Which rows of X were trained on.
    precision_ : {"float32", "bf16"}
        What `precision` came to.
    n_threads_ : int
        Threads of torch that training ended with: 1 in a worker of joblib, or where
        other processes use the cores (a warning tells), unless ``OMP_NUM_THREADS`` says
        otherwise.
    net_ : skorch.NeuralNetClassifier
        The net after the refit, which predicts.
    history_ : list of dict
        One row an epoch: stage, epoch, lr, train_loss, and valid_loss and valid_acc
        where there is a validation set.
    calibration_scores_ : ndarray of shape (n_holdout,) or None
        Selection scores of the hold-out, or of the samples given to `calibrate`.
    reject_threshold_ : float, dict of float, or None
        Samples with this selection score or more are accepted; after
        ``calibrate(..., per_group=True)`` one for each group.
    certificate_ : masktune_sk.rejection.Certificate or None
        What the threshold guarantees; None if nothing calibrated it.
    holdout_accuracy_ : dict or None
        Accuracy on the hold-out "before" (`erm_net_`) and "after" (`net_`).

    See Also
    --------
    OFFICIAL_MASKTUNE : Parameters of the official code's recipe.

    Notes
    -----
    Two published defaults are deliberately not used. Where the threshold rule hides
    nothing, as it does on a map with one clean spot, the official code leaves the
    sample as it is, silently; here the statistics of all positions decide (for vectors,
    at last, the largest feature), and `n_empty_masks_` counts them. And the product of
    the two nets' probabilities is thresholded as it is, as the paper says, without the
    second softmax of the code.

    Masks are applied to the input tensor itself, in its own resolution; nothing is
    written to disk. Fitted nets keep no state of the optimizer.

    References
    ----------
    .. [1] Asgari Taghanaki, Khani, Khani, Gholami, Tran, Mahdavi-Amiri, Hamarneh,
       "MaskTune: Mitigating Spurious Correlations by Forcing to Explore",
       NeurIPS 2022.

    Examples
    --------
    >>> from masktune_sk import MaskTuneClassifier
    >>> from masktune_sk.datasets import load_shortcut_digits
    >>> from masktune_sk.modules import default_net
    >>> X, y = load_shortcut_digits(return_X_y=True)
    >>> net = default_net(X.shape[1:], n_classes=2, max_epochs=3)
    >>> clf = MaskTuneClassifier(net, random_state=0).fit(X[:400], y[:400])
    >>> y_pred, accepted = clf.predict_with_reject(X[:100], coverage=0.8)
    >>> y_pred.shape, accepted.dtype
    ((100,), dtype('bool'))
    """

    _parameter_constraints = {
        **BaseDebiasedClassifier._parameter_constraints,
        "saliency": [
            StrOptions({"auto", *METHODS}),
            BaseSaliency,
            callable,
        ],
        "target_layer": [str, None],
        "saliency_target": [StrOptions({"predicted", "true"})],
        "mask_threshold": [Interval(Real, 0, None, closed="left")],
        "threshold_rule": [StrOptions({"sigma", "quantile", "value"})],
        "mask_fill": [
            Interval(Real, None, None, closed="neither"),
            StrOptions({"mean"}),
            "array-like",
        ],
        "masking": [StrOptions({"saliency", "random", "none"})],
        "n_mask_rounds": [Interval(Integral, 1, None, closed="left")],
        "accumulate_masks": ["boolean"],
        "mask_from": [StrOptions({"last", "best"})],
        "refit_epochs": [Interval(Integral, 0, None, closed="left")],
        "refit_lr": [Interval(Real, 0, None, closed="neither"), None],
        "refit_optimizer": [StrOptions({"continue", "fresh"})],
        "freeze_norm": ["boolean", StrOptions({"auto"})],
        "store_maps": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        saliency="auto",
        target_layer=None,
        saliency_target="predicted",
        mask_threshold=2.0,
        threshold_rule="sigma",
        mask_fill=0.0,
        masking="saliency",
        n_mask_rounds=1,
        accumulate_masks=True,
        mask_from="last",
        refit_epochs=1,
        refit_lr=None,
        refit_optimizer="continue",
        freeze_norm="auto",
        augment=None,
        validation_fraction=0.2,
        coverage=0.9,
        rejection="product",
        memory=None,
        precision="float32",
        store_maps=False,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.saliency = saliency
        self.target_layer = target_layer
        self.saliency_target = saliency_target
        self.mask_threshold = mask_threshold
        self.threshold_rule = threshold_rule
        self.mask_fill = mask_fill
        self.masking = masking
        self.n_mask_rounds = n_mask_rounds
        self.accumulate_masks = accumulate_masks
        self.mask_from = mask_from
        self.refit_epochs = refit_epochs
        self.refit_lr = refit_lr
        self.refit_optimizer = refit_optimizer
        self.freeze_norm = freeze_norm
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.coverage = coverage
        self.rejection = rejection
        self.memory = memory
        self.precision = precision
        self.store_maps = store_maps
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------ stages

    def _fit_stages(self, data):
        check_threshold(self.mask_threshold, self.threshold_rule)
        fill = fill_values(self.mask_fill, data.train)
        # A frozen net has only its last epoch.
        best = self.mask_from == "best" and data.fitted is None
        if best and data.valid is None:
            raise ValueError(
                "mask_from='best' needs a validation set to find the best epoch. Set "
                "validation_fraction above 0, or mask_from='last'."
            )

        def check(net):
            method, layer = self._resolve_saliency(net, probe)
            compute_maps(net, probe, method, layer, pack=True, precision=data.precision)

        probe = data.probe()
        erm, erm_key = data.train_erm(check, keep_best=best)
        net = erm_net = build_net(
            data.template, erm, best=best, precision=data.precision
        )
        method, layer = self._resolve_saliency(erm_net, probe)
        history = [{"stage": "ERM", **row} for row in erm.history]

        state, source = erm, data.train
        maps, fraction, n_empty = None, 0.0, 0
        for i in range(1, self.n_mask_rounds + 1):
            # Drawn alike for every kind of masking, so that the controls differ in
            # nothing else.
            mask_seed, refit_seed = data.seed(), data.seed()
            if self.masking != "none":
                looked_at = source if self.accumulate_masks else data.train
                # Later rounds depend on how the first one masked.
                key = erm_key if i == 1 else None
                maps = self._find_maps(data, net, looked_at, method, layer, key)
                source = self._mask(looked_at, maps, fill, mask_seed)
                fraction, n_empty = self._count(source)
            state = self._refit(state, source, data, i, refit_seed)
            net = build_net(data.template, state, precision=data.precision)
            history += [{"stage": f"refit {i}", **row} for row in state.history]

        fitted = {
            "erm_net_": erm_net,
            "saliency_": method,
            "layer_": layer,
            "mask_fill_": fill,
            "masked_fraction_": fraction,
            "n_empty_masks_": n_empty,
            "train_indices_": data.rows,
            "net_": net,
            "history_": history,
        }
        if self.store_maps:
            fitted["maps_"] = maps
        before = erm.best_holdout_proba if best else erm.holdout_proba
        return fitted, (before, state.holdout_proba)

    def _find_maps(self, data, net, source, method, layer, erm_key):
        """Compute the maps of the training rows, or find them."""
        by_label = self.saliency_target == "true"
        key = erm_key and data.key(erm_key, method, layer, by_label)

        def compute(rows):
            return compute_maps(
                net,
                source.take(rows),
                method,
                layer,
                labels=source.labels[rows] if by_label else None,
                pack=True,
                precision=data.precision,
                verbose=self.verbose,
            )

        return data.fetch(
            "maps", key, lambda: data.processes.in_parts(compute, len(source))
        )

    def _mask(self, source, maps, fill, seed):
        shifts = None
        if self.masking == "random":
            shifts = np.random.default_rng(seed).random((len(source), 2))
        return MaskedSource(
            source,
            maps,
            threshold=self.mask_threshold,
            rule=self.threshold_rule,
            fill=fill,
            shifts=shifts,
        )

    def _count(self, source):
        """Count what is hidden, and say so if that is next to nothing."""
        fraction, n_empty, n_unmasked = source.summary()
        if 2 * n_unmasked > len(source):
            warnings.warn(
                f"{n_unmasked} of {len(source)} training samples are not masked at "
                f"all (mask_threshold={self.mask_threshold}, "
                f"threshold_rule={self.threshold_rule!r}), so the refit is mostly "
                "more ERM. Lower the threshold, or name another saliency or "
                "target_layer.",
                EmptyMaskWarning,
                stacklevel=7,
            )
        return fraction, n_empty

    def _refit(self, state, source, data, i, seed):
        freeze_norm = self.freeze_norm
        if freeze_norm == "auto":
            freeze_norm = self.masking != "none" and len(data.train.item_shape) == 1
        return refit(
            data.template,
            state,
            source,
            epochs=self.refit_epochs,
            valid=data.valid,
            lr=self.refit_lr,
            optimizer=self.refit_optimizer if i == 1 else "continue",
            seed=seed,
            augment=data.augment,
            freeze_norm=freeze_norm,
            precision=data.precision,
            stage="refit" if self.n_mask_rounds == 1 else f"refit {i}",
            verbose=self.verbose,
        )

    def _resolve_saliency(self, net, probe):
        X = probe.batch(np.arange(len(probe)))
        return resolve_saliency(self.saliency, self.target_layer, net, X)

    # ------------------------------------------------------------------ looking

    def _proba_before(self, dataset):
        return self._proba(self.erm_net_, dataset)

    def _maps_of(self, net, source):
        return compute_maps(
            net, source, self.saliency_, self.layer_, precision=self.precision_
        )

    def saliency_maps(self, X, *, net="refit", resize=True):
        """Compute what a net looks at.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.
        net : {"refit", "erm"}, default="refit"
            The net after masking, or the one before.
        resize : bool, default=True
            Bring the maps to the size of the images; False: at the resolution of the
            layer.

        Returns
        -------
        maps : ndarray of shape (n_samples, height, width) or (n_samples, n_features)
            Each scaled to [0, 1], float32, for the class that the net predicts.
        """
        dataset = self._dataset(X)
        nets = {"refit": self.net_, "erm": self.erm_net_}
        if net not in nets:
            raise ValueError(f"net must be 'refit' or 'erm', got {net!r}.")
        maps = self._maps_of(nets[net], dataset.source)
        return resize_maps(maps, self.input_shape_) if resize else scale_maps(maps)

    def mask(self, X):
        """Show what would be hidden, by the maps of the ERM net.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.

        Returns
        -------
        X_masked : ndarray of the same shape
            The samples with the fill value where they are masked; of the same dtype if
            that can hold the fill value, else float32.
        masks : ndarray of bool, shape (n_samples, height, width), or that of vectors
            True = kept.
        """
        dataset = self._dataset(X)
        source, fill = dataset.source, self.mask_fill_
        X = getattr(source, "X", None)
        if X is None:
            X = np.concatenate([batch.numpy() for _, batch in source.batches()])
        maps = self._maps_of(self.erm_net_, source)
        maps = resize_maps(maps, self.input_shape_)
        masks, _ = threshold_maps(maps, self.mask_threshold, self.threshold_rule)
        dtype = X.dtype if (fill.astype(X.dtype) == fill).all() else np.float32
        return apply_masks(X.astype(dtype), masks, fill.astype(dtype)), masks

    def _closing_line(self):
        sizes = f"{100 * self.masked_fraction_:.1f} % of each sample masked on average"
        empty = f"{self.n_empty_masks_} of {len(self.train_indices_)} masks empty"
        return f"{super()._closing_line()[:-1]}; {sizes}, {empty} by the rule itself."
