"""RR-ClArC and its family: unlearn a concept that one can point at."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples
from torch import nn

from .._base import BaseDebiasedClassifier
from ..concepts import check_concept, concept_directions
from ..concepts._estimators import check_cav
from ..modules._latent import find_latent_layer, parameters_after
from ..modules._latent_edit import LatentEdit
from ..objectives import ConceptPenalty, RightReasons
from ..training import build_net
from ._checks import (
    check_masks,
    check_masks_fit,
    check_penalty,
    encode_scope,
    resolve_target,
)
from ._correction import correct_net, edit_net
from ._latents import gaps_of, latents_of
from ._measures import ConceptMeasuresMixin, measure_all

__all__ = ["RRClArCClassifier"]

METHODS = ("rr-clarc", "a-clarc", "p-clarc", "rp-clarc", "rrr", "none")
# Edits that are a part of the net that predicts; nothing is trained.
EDITS = ("p-clarc", "rp-clarc")
# Those that move samples to the mean score of others.
MOVES = (*EDITS, "a-clarc")
AUTO_WEIGHT = {"rr-clarc": 0.1, "rrr": 10.0}
PENALTIES = {"rr-clarc": ("l2", "l1"), "rrr": ("l2", "cosine")}


class RRClArCClassifier(ConceptMeasuresMixin, BaseDebiasedClassifier):
    """RR-ClArC: unlearn an artifact that you can point at, in a net already trained.

    Corrects a net where you can *say* which samples show an artifact. What a layer puts
    out for samples with and without it gives a direction, the concept activation
    vector (CAV); then the layers after it are trained on with a penalty on how much the
    logits move along that direction [1]_. The other methods of the family, and the
    control, differ in the `method` alone.

    Use it where some tens of samples that show the artifact are known, within a class
    that has samples without it too. It will not help where the artifact is all that
    tells a class, where it is encoded in many directions or before the layer, and, with
    a single linear layer after it, against a change of the whole image such as
    brightness. A small sensitivity proves nothing by itself: look at the accuracy on
    samples that the artifact misleads.

    Parameters
    ----------
    estimator : skorch.NeuralNetClassifier, FrozenEstimator or None, default=None
        The net. It is cloned and never touched. It is trained as it is configured
        first (ERM); ``FrozenEstimator(fitted_net)``, or a fitted estimator of this
        package in it, is corrected as it is. None:
        `masktune_sk.modules.default_net` for the shape of X.
    method : str, default="rr-clarc"
        How the net is corrected.

        - "rr-clarc": the layers after `target_layer` are trained on, with a penalty on
          the derivatives of the logits along the concept;
        - "a-clarc": they are trained on while the concept is added to all samples [2]_;
        - "p-clarc": the concept is projected out of the layer's output, in the net that
          predicts; nothing is trained [2]_;
        - "rp-clarc": the same, of those samples alone that score nearer to samples
          with the artifact [3]_;
        - "rrr": they are trained on with a penalty on the input gradient inside
          `artifact_mask` [4]_;
        - "none": they are trained on as long without any penalty: the control of every
          experiment.
    target_layer : str, default=None
        Dotted name of the layer that is corrected, as in ``module.named_modules()``.
        None: for images the last one to run that has positions and is no pooling, for
        vectors the one before the last linear layer. Everything up to it stays as it
        is; an earlier one leaves more to train, which diffuse artifacts need.
    cav : str, estimator or array-like, default="signal"
        How the direction is computed: "signal" (difference of means), "svm", "ridge",
        "lasso", "logistic", a linear scikit-learn estimator, or the direction itself,
        of shape (n_latents,) or (n_concepts, n_latents), see
        `masktune_sk.concepts.concept_directions`.
    pool : {"auto", "max", "mean", "none"}, default="auto"
        How positions become one vector; "none" gives each its own direction. "auto":
        "max", as the paper, where the net averages positions after the layer; "none"
        where it flattens up to 10,000 values: with "max" it keeps most of its bias to
        an artifact at one place. Against one that may be anywhere "max" does better.
    cav_scope : {"auto", "all"} or list of labels, default="auto"
        Which samples are compared for the direction: of the same class, in all classes
        with enough samples of both kinds; all regardless of class; or within these
        classes.
    min_concept_samples : int, default=5
        How many training samples with, and how many without the artifact are needed.
    penalty_weight : float or "auto", default="auto"
        Weight of the penalty of "rr-clarc" and "rrr". With ``scale="gap"`` that of
        "rr-clarc" has the same meaning in every layer, and results are much the same
        from 0.001 to 1. "auto": 0.1, or 10 for "rrr", which needs a search.
    gradient_target : str or class label, default="all"
        Whose derivatives are penalised: "all" classes'; "all_random", the sum of all
        with random signs (the official code); their "sum"; the true class
        ("target"), the predicted one ("max"), or the class of this label.
    penalty : {"l2", "l1", "cosine"}, default="l2"
        Squares or absolute values of derivatives. For "rrr": squares of the gradient,
        or its cosine with the mask.
    spatial : {"broadcast", "mean"}, default="broadcast"
        "mean" divides derivatives by the number of positions, as the official code.
    scale : {"gap", "unit"}, default="gap"
        Multiply derivatives by the gap, the distance between samples with and without
        the artifact along the direction, or take those of a direction of length 1 (the
        official code). A direction given without any `concept` has its own length as
        its gap. An official weight is ``penalty_weight * n_positions**2 * gap**2``.
    refit_epochs : int, default=10
        Epochs of the correction; 0 corrects nothing that has to be trained.
    refit_lr : float, default=None
        Its learning rate; None: a tenth of the rate that training ended with. For SGD
        it is reduced, with a warning, where the penalty would make it unstable.
    refit_optimizer : type, default=None
        A torch optimizer; None: that of the net. Moments start anew.
    cache_latents : bool, default=True
        Compute the layer's output once and train what follows it alone, where it can be
        separated (by `torch.fx`), nothing is augmented, and it takes less than 2 GiB.
        The result is the same up to rounding.
    augment : callable, default=None
        Applied to the tensor of each training sample in both trainings, for instance
        a torchvision v2 transform that keeps the shape.
    validation_fraction : float in [0, 1), default=0.2
        Share of each class that is held out, for skorch's validation set and the reject
        threshold. With 0 a `train_split` of the net's own is used.
    coverage : float in (0, 1], default=0.9
        Share of samples that `predict_with_reject` accepts, by default.
    rejection : str, default="product"
        The selection score, see `masktune_sk.rejection.selection_scores`.
    memory : str, path or joblib.Memory, default=None
        A folder where the ERM stage is kept and found again by any other fit on the
        same data with the same net and seed: a search over methods and weights trains
        ERM once a fold.
    precision : {"float32", "bf16", "auto"}, default="float32"
        "bf16" runs every stage in bfloat16, under autocast; "auto": where that is fast.
    random_state : int, RandomState or None, default=None
        Seeds the hold-out, both trainings and the folds of `cav`.
    verbose : int, default=0
        1: a progress bar for each stage and a closing line. 2: skorch's table of
        epochs in place of the bars.

    Attributes
    ----------
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features_in_,)
        Number of features or channels; names, if X is a data frame with string names.
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    input_shape_ : tuple of int
        Shape of one sample.
    uncorrected_net_ : skorch.NeuralNetClassifier
        The net before the correction.
    layer_ : LatentLayer
        The layer that is corrected: name, shape, axis of channels, pooling.
    concept_ : masktune_sk.concepts.ConceptDirections or None
        The directions, with gaps and held-out AUC. None where nothing tells them.
    penalty_weight_ : float or None
        What `penalty_weight` came to; None without a penalty.
    refit_lr_ : float or None
        Learning rate of the correction; None if nothing was trained.
    sensitivity_before_, sensitivity_after_ : ndarray of shape (n_classes,) or \
            (n_concepts, n_classes), or None
        Mean ``|gap d_k|`` of the training samples that show the artifact, before and
        after the correction: the number of logits that the artifact is worth to first
        order.
    tcav_before_, tcav_after_ : ndarray of the same shape, or None
        The share of them whose logit grows along the direction. It means little where
        the sensitivity is small.
    artifact_relevance_before_, artifact_relevance_after_ : float or None
        The share of input times gradient that lies on the artifact, of the training
        samples that show it; None without `artifact_mask`.
    train_indices_ : ndarray of int, shape (n_train,)
        Which rows of X were trained on.
    precision_, n_threads_ : str, int
        What `precision` came to; threads of torch that training ended with.
    net_ : skorch.NeuralNetClassifier
        The corrected net, which predicts.
    history_ : list of dict
        One row an epoch: stage, epoch, lr, losses, and accuracy on a validation set.
    calibration_scores_, reject_threshold_, certificate_ : ndarray, float, Certificate
        See `calibrate`.
    holdout_accuracy_ : dict or None
        Accuracy on the hold-out "before" (`uncorrected_net_`) and "after" (`net_`).

    See Also
    --------
    MaskTuneClassifier : Needs no knowledge of the artifact.

    Notes
    -----
    The official code draws random signs for the classes and takes a second derivative;
    here all classes' derivatives come from one forward-mode derivative, exactly, whose
    sum of squares is what the random signs estimate. The net is in eval mode while it
    is corrected: no dropout, and batch normalisation by the statistics it has. The
    official code leaves the dropout of the last layers on.

    What runs before `target_layer` is found by running the net, whatever the names of
    its parts. A criterion other than `CrossEntropyLoss` and `NLLLoss` is refused; of
    the latter's probabilities the logarithm is corrected. Operations without a forward
    mode are derived by two backward passes.

    References
    ----------
    .. [1] Dreyer, Pahde, Anders, Samek, Lapuschkin, "From Hope to Safety: Unlearning
       Biases of Deep Models via Gradient Penalization in Latent Space", AAAI 2024.
    .. [2] Anders et al., "Finding and removing Clever Hans: Using explanation methods
       to debug and improve deep models", Information Fusion 77, 2022.
    .. [3] Bareeva, Dreyer, Pahde, Samek, Lapuschkin, "Reactive Model Correction:
       Mitigating Harm to Task-Relevant Features via Conditional Bias Suppression",
       CVPR Workshops 2024.
    .. [4] Ross, Hughes, Doshi-Velez, "Right for the Right Reasons: Training
       Differentiable Models by Constraining their Explanations", IJCAI 2017.

    Examples
    --------
    >>> from masktune_sk import RRClArCClassifier
    >>> from masktune_sk.datasets import load_shortcut_digits
    >>> from masktune_sk.modules import default_net
    >>> digits = load_shortcut_digits(conflict_ratio=0.1)
    >>> X, y, has_square = digits.data[:400], digits.target[:400], digits.bias[:400]
    >>> net = default_net(X.shape[1:], n_classes=2, max_epochs=3)
    >>> clf = RRClArCClassifier(net, refit_lr=0.001, random_state=0)
    >>> clf.fit(X, y, concept=has_square).layer_.name
    'features'
    >>> bool(clf.sensitivity_after_.sum() < 0.5 * clf.sensitivity_before_.sum())
    True
    """

    _parameter_constraints = {
        **BaseDebiasedClassifier._parameter_constraints,
        "method": [StrOptions(set(METHODS))],
        "target_layer": [str, None],
        "cav": "no_validation",
        "pool": [StrOptions({"auto", "max", "mean", "none"})],
        "cav_scope": [StrOptions({"auto", "all"}), "array-like"],
        "min_concept_samples": [Interval(Integral, 1, None, closed="left")],
        "penalty_weight": [
            Interval(Real, 0, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "gradient_target": "no_validation",
        "penalty": [StrOptions({"l2", "l1", "cosine"})],
        "spatial": [StrOptions({"broadcast", "mean"})],
        "scale": [StrOptions({"gap", "unit"})],
        "refit_epochs": [Interval(Integral, 0, None, closed="left")],
        "refit_lr": [Interval(Real, 0, None, closed="neither"), None],
        "refit_optimizer": [callable, None],
        "cache_latents": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        method="rr-clarc",
        target_layer=None,
        cav="signal",
        pool="auto",
        cav_scope="auto",
        min_concept_samples=5,
        penalty_weight="auto",
        gradient_target="all",
        penalty="l2",
        spatial="broadcast",
        scale="gap",
        refit_epochs=10,
        refit_lr=None,
        refit_optimizer=None,
        cache_latents=True,
        augment=None,
        validation_fraction=0.2,
        coverage=0.9,
        rejection="product",
        memory=None,
        precision="float32",
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.method = method
        self.target_layer = target_layer
        self.cav = cav
        self.pool = pool
        self.cav_scope = cav_scope
        self.min_concept_samples = min_concept_samples
        self.penalty_weight = penalty_weight
        self.gradient_target = gradient_target
        self.penalty = penalty
        self.spatial = spatial
        self.scale = scale
        self.refit_epochs = refit_epochs
        self.refit_lr = refit_lr
        self.refit_optimizer = refit_optimizer
        self.cache_latents = cache_latents
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.coverage = coverage
        self.rejection = rejection
        self.memory = memory
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------ fit

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, concept=None, artifact_mask=None):
        """Fit the estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or \
                (n_samples, n_channels, height, width), Dataset or DatasetView
            Vectors or images, see `MaskTuneClassifier.fit`.
        y : array-like of shape (n_samples,), default=None
            Labels: integers, strings or booleans. None: those of the Dataset.
        concept : array-like of shape (n_samples,) or (n_samples, n_concepts), \
                default=None
            1 or True: the sample shows the artifact; 0 or False: it does not; -1 or
            NaN: unknown, left out of the direction. Every method but "rrr" and "none"
            needs it, unless `cav` is an array.
        artifact_mask : array-like of bool, shape (n_samples, height, width) or \
                (n_samples, n_features), default=None
            True where the artifact is; all False for samples without it. "rrr" needs
            it; the others measure `artifact_relevance_before_` by it.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the parameters, X, y, concept or artifact_mask are not what they should
            be; before any training.
        NonFiniteError
            If a loss becomes NaN or infinite; it says where.
        """
        known = {}
        if concept is not None:
            known["concept"] = check_concept(concept, _num_samples(X), min_samples=1)
        if artifact_mask is not None:
            known["artifact_mask"] = check_masks(artifact_mask, _num_samples(X))
        return self._fit_and_commit(X, y, **known)

    def _fit_stages(self, data):
        concept, scope, target = self._check_known(data)
        probe = data.probe()
        erm, _ = data.train_erm(lambda net: self._check_net(net, probe))
        before = build_net(data.template, erm, precision=data.precision)
        layer = self._find_layer(before, probe)
        cav_seed = data.seed()
        directions = None
        if concept is not None or not self._cav_is_estimated():
            directions = concept_directions(
                latents_of(before, data.train, layer, precision=data.precision),
                concept,
                data.train.labels,
                cav=self.cav,
                scope=scope,
                min_samples=self.min_concept_samples,
                random_state=cav_seed,
            )
        template, state, weight, rate = self._correct(
            data, erm, before, layer, directions, target
        )
        net = build_net(template, state, precision=data.precision)
        history = [{"stage": "ERM", **row} for row in erm.history]
        if state.history is not erm.history:
            history += [{"stage": "refit", **row} for row in state.history]
        fitted = {
            "uncorrected_net_": before,
            "layer_": layer,
            "concept_": directions,
            "penalty_weight_": weight,
            "refit_lr_": rate,
            "train_indices_": data.rows,
            "net_": net,
            "history_": history,
        }
        for name, of_net in (("before", before), ("after", net)):
            measures = measure_all(of_net, data, layer, directions, concept)
            fitted |= {f"{measure}_{name}_": x for measure, x in measures.items()}
        return fitted, (erm.holdout_proba, state.holdout_proba)

    def _correct(self, data, erm, before, layer, directions, target):
        """Intervene: return what to build the net of, the weight and the rate."""
        if self.method in EDITS:
            reactive = self.method == "rp-clarc"
            return (
                *edit_net(data.template, erm, layer, directions, reactive),
                None,
                None,
            )
        weight = self.penalty_weight
        if self.method not in AUTO_WEIGHT:
            weight = None
        elif weight == "auto":
            weight = AUTO_WEIGHT[self.method]
        if self.refit_epochs == 0:
            return data.template, erm, weight, None
        criterion, extra = before.criterion_, {}
        if self.method == "rr-clarc":
            size = gaps_of(directions)
            size = size if self.scale == "gap" else np.ones_like(size)
            if self.spatial == "mean":
                size = size / layer.n_positions
            criterion = ConceptPenalty(
                criterion, weight, scale=size, target=target, norm=self.penalty
            )
            extra = {"directions": directions.directions}
        elif self.method == "rrr":
            criterion = RightReasons(criterion, weight, norm=self.penalty)
            extra = {"masks": data.known["artifact_mask"]}
        elif self.method == "a-clarc":
            extra = {
                "edit": LatentEdit(layer, directions.directions, directions.z_artifact)
            }
        state, rate = correct_net(
            data,
            erm,
            before,
            layer,
            criterion,
            epochs=self.refit_epochs,
            lr=self.refit_lr,
            optimizer=self.refit_optimizer,
            cache=self.cache_latents,
            **extra,
        )
        return data.template, state, weight, rate

    # ------------------------------------------------------------------ checks

    def _cav_is_estimated(self):
        return isinstance(self.cav, str) or hasattr(self.cav, "fit")

    def _check_known(self, data):
        """Check what has nothing to do with a net; return concept, scope, target."""
        check_penalty(self.method, self.penalty, PENALTIES)
        target = resolve_target(self.gradient_target, data.classes)
        masks = data.known.get("artifact_mask")
        check_masks_fit(self.method, masks, data.train.item_shape, data.augment)
        estimated = self._cav_is_estimated()
        if estimated:
            check_cav(self.cav)
        concept = data.known.get("concept")
        if concept is None:
            if self.method in MOVES or (estimated and self.method == "rr-clarc"):
                raise ValueError(
                    f"method={self.method!r} needs to know which samples show the "
                    "artifact: pass concept to fit, 1 with, 0 without and -1 where "
                    "that is unknown. In a Pipeline or a search, request it by "
                    "set_fit_request(concept=True). method='none' trains without."
                )
            return None, "all", target
        least = self.min_concept_samples
        concept = check_concept(concept, len(concept), min_samples=least)
        scope = encode_scope(
            self.cav_scope, concept, data.train.labels, data.classes, least
        )
        return concept, scope, target

    def _check_net(self, net, probe):
        """Check what depends on the net, before it is trained."""
        if not isinstance(net.criterion_, nn.CrossEntropyLoss | nn.NLLLoss):
            raise ValueError(
                "The correction needs logits: criterion must be CrossEntropyLoss, or "
                "NLLLoss for a module that returns probabilities; got "
                f"{type(net.criterion_).__name__}."
            )
        layer = self._find_layer(net, probe)
        if self.method not in EDITS:
            parameters_after(net.module_, layer.name, _batch_of(net, probe))
        if not self._cav_is_estimated():
            # Refuses directions of another length.
            zeros = np.zeros((2, layer.n_latents))
            concept_directions(zeros, None, None, cav=self.cav, scope="all")

    def _find_layer(self, net, probe):
        X = _batch_of(net, probe)
        return find_latent_layer(net.module_, X, self.target_layer, self.pool)

    # ------------------------------------------------------------------ looking

    def _proba_before(self, dataset):
        return self._proba(self.uncorrected_net_, dataset)


def _batch_of(net, probe):
    """Read a few samples, to where the module is."""
    device = next(net.module_.parameters()).device
    return probe.batch(np.arange(len(probe))).to(device)
