"""DeNetDM: let a deep network take the shortcut, and learn what is left."""

from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from scipy.special import softmax
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, StrOptions

from .._base import BaseDebiasedClassifier
from .._samples import labels_of
from ..inspection._layer_report import layer_report
from ..modules._branches import trunk_of
from ._branches import train_branches
from ._nets import plan_branches, plan_target
from ._roles import BRANCHES
from ._target import train_target

__all__ = ["DeNetDMClassifier"]


class DeNetDMClassifier(BaseDebiasedClassifier):
    """DeNetDM: let the deep of two branches take the shortcut, learn from the other.

    Trains a shallow and a deep network together, by the sum of their features under one
    linear layer: the deep one takes what is easy, the shortcut, and leaves the rest to
    the shallow one. Then it trains a third network, the target, beside the frozen deep
    one, so that it need not learn the shortcut again, and after the predictions of the
    frozen shallow one [1]_. The target predicts alone. No label of the shortcut is
    needed.

    Use it where ERM leans on something *global* that is easier than the class: colour,
    texture, tone, the background. If what you want the net to use is the easier
    feature, this works against you: look at both branches (`branch_predict_proba`) on a
    few samples whose shortcut contradicts their class. Accuracy on validation data with
    the same shortcut can't choose its parameters.

    Vectors are experimental: nothing is published about them, and on tables the roles
    often come out reversed, because the deep network fits a non-linear core as fast as
    the shallow one fits a single column. ``debiased_branch="auto"`` is for that.

    Parameters
    ----------
    estimator : skorch.NeuralNetClassifier or None, default=None
        The target. It is cloned and never touched. Its epochs, optimizer, learning
        rate, schedule, callbacks and device are those of stage 2; its device, batches
        and criterion (of logits) those of stage 1 as well. Its module must end in a
        `torch.nn.Linear` that returns the logits. None: `masktune_sk.modules.
        default_net` for the shape of X.
    shallow_module, deep_module : torch.nn.Module, type or callable, default="auto"
        The branches: a module, or what makes one without arguments. It returns
        features, or is a classifier, of which the last linear layer is cut off. "auto":
        for vectors MLPs of depth 3 and 5 and width 100; for images below 96 pixels
        three convolutions and a ResNet-20; from there on four convolutions and a
        ResNet-18. A network that is given keeps its weights as a start: `random_state`
        has no part in them.
    feature_dim : int, default=None
        Features that branches and target have in common. None: those of the shallow
        branch. Whatever has another number gets a linear projection. Best give branches
        that need none: with projections, the shared head is shared no more.
    head_bias : bool, default=True
        Whether the shared linear layer has a bias. Without one, the sum of features is
        exactly the product of two experts.
    stage1_epochs : int, default=None
        Epochs of the branches; None: as many as the net has. The debiased branch goes
        on to improve for long: the paper has 100.
    stage1_lr : float, default=0.001
        Learning rate of the branches, by Adam.
    stage1_weight_decay : float, default=0.001
        Their weight decay.
    stage1_batch_size : int, default=None
        Their samples a batch; None: as many as the net has.
    n_init : int, default=1
        Starts of stage 1. Several are trained for a twentieth of its epochs, and the
        one whose branches do best, each alone, is trained in full: from a bad start the
        deep branch does not get the whole shortcut.
    stage1_average : bool, default=False
        Whether the branches have, after stage 1, the mean of their weights over the
        last fifth of the epochs, not those of the last one.
    stage2_epochs : int, default=None
        Epochs of the target; None: the net's.
    stage2_lr : float, default=None
        Its learning rate; None: the net's. The paper has 1e-4 for ResNets.
    stage2_weight_decay : float, default=None
        Its weight decay; None: as the net is set up.
    poe_weight : float, default=1.0
        Weight of the cross-entropy of target and biased branch together. Alone, it
        makes a target that is better on bias-aligned samples and worse on the others.
    distill_weight : float, default=1.0
        Weight of the distance from the debiased branch. Alone, it adds little to that
        branch.
    temperature : float, default=2.0
        Softens both in that distance.
    debiased_branch : {"auto", "shallow", "deep"}, default="auto"
        Which branch teaches; the other one is the biased one. "shallow" is what the
        paper takes for granted. "auto" looks: the net is trained by plain ERM for one
        epoch, and the branch that does better on the samples which it gets wrong is the
        debiased one. If that does not decide, it is "shallow", and a warning says so.
    predict_branch : {"target", "shallow", "deep"}, default="target"
        What predicts. A branch: there is no stage 2, which costs most of the time and
        adds a few points.
    freeze_norm : bool, default=True
        Freeze the biased branch in stage 2 wholly. False: its batch normalisation goes
        on taking statistics, as in the official code.
    augment : callable, default=None
        Applied to the tensor of each training sample in both stages, for instance a
        torchvision v2 transform that keeps the shape. Without it and with
        `freeze_norm`, what the frozen branches return is computed once, not in every
        epoch.
    validation_fraction : float in [0, 1), default=0.2
        Share of each class that is held out: skorch's validation set, and the samples
        that calibrate the reject threshold. At least one sample of each class. With 0
        there is neither, and a `train_split` of the net's own is used.
    coverage : float in (0, 1], default=0.9
        Share of samples that `predict_with_reject` accepts, by default.
    rejection : str, default="product"
        The selection score: "product", "product_softmax", "agreement", "refit", "erm",
        "margin" or "entropy", see `masktune_sk.rejection.selection_scores`. The net
        before ("erm") is here the debiased branch, the one after ("refit") `net_`.
    memory : str, path or joblib.Memory, default=None
        A folder where the stages are kept and found again by any other fit on the same
        data with the same seed and parameters of that stage: a search over stage 2
        trains the branches once a fold. Nothing is kept with ``random_state=None``.
        Entries are pickles: use a folder that only you can write to.
    precision : {"float32", "bf16", "auto"}, default="float32"
        "bf16" runs every stage, predictions included, in bfloat16; "auto": where there
        are instructions for it. Faster; the last digits differ.
    random_state : int, RandomState or None, default=None
        Seeds the hold-out and all trainings. An int gives the same result in every fit
        (for one number of threads and the same versions), and leaves the global
        generators as they were.
    verbose : int, default=0
        1: a progress bar for each stage and a closing line. 2: skorch's table of
        epochs in place of the bars.

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
    feature_dim_ : int
        Features that branches and target have in common.
    head_layer_ : str
        Dotted name of the last layer of the target's module.
    shallow_net_, deep_net_ : skorch.NeuralNetClassifier
        The branches after stage 1, each with a copy of the shared head. Their modules
        return logits and features.
    start_scores_ : list of float
        Of each start of stage 1 the class-balanced accuracy of a branch alone, the mean
        of both, on the hold-out if there is one; empty if there was one start.
    role_scores_ : dict or None
        Class-balanced accuracy of "shallow" and "deep" on the samples that one epoch of
        ERM got wrong, and "n_hard", their number; None if `debiased_branch` is given.
    debiased_branch_ : {"shallow", "deep"}
        The branch that teaches.
    separation_ : dict
        How far the branches have come apart on the training samples: "disagreement",
        "accuracy" and "balanced_accuracy" of each, "biased_wrong", the share that the
        biased branch gets wrong (about the share of bias-conflicting samples, or more),
        and "starved", a branch at chance or None.
    conflict_score_ : ndarray of shape (n_train,), float32
        For each training row, one less the probability that the biased branch gives
        its label: near 1 looks bias-conflicting.
    train_indices_ : ndarray of int, shape (n_train,)
        Which rows of X were trained on.
    precision_ : {"float32", "bf16"}
        What `precision` came to.
    n_threads_ : int
        Threads of torch that training ended with.
    net_ : skorch.NeuralNetClassifier
        What predicts: the target, a net of the user's type with the user's module, or
        the net of a branch.
    history_ : list of dict
        One row an epoch: stage ("start 1 of 3" and so on, "branches", "early ERM" and
        "target"), epoch, lr, train_loss, and valid_loss and valid_acc where there is a
        validation set. In "target" that is of the target alone, in "branches" of both
        together.
    calibration_scores_ : ndarray of shape (n_holdout,) or None
        Selection scores of the hold-out, or of the samples given to `calibrate`.
    reject_threshold_ : float, dict of float, or None
        Samples with this selection score or more are accepted; after
        ``calibrate(..., per_group=True)`` one for each group.
    certificate_ : masktune_sk.rejection.Certificate or None
        What the threshold guarantees; None if nothing calibrated it.
    holdout_accuracy_ : dict or None
        Accuracy on the hold-out "before" (the debiased branch) and "after" (`net_`).

    See Also
    --------
    MaskTuneClassifier : For shortcuts that are somewhere in the image.
    masktune_sk.inspection.layer_report : What the branches know, layer by layer.

    Notes
    -----
    The official code chooses the epoch of both stages on the test set, by labels of the
    shortcut. Here it is the last epoch. It also leaves the statistics of batch
    normalisation in the frozen branch unfrozen, and starts the target from ImageNet
    where the paper does not say so; here it starts as `estimator` does.

    The target's last layer is replaced by a copy of the shared head in stage 2, after a
    linear projection where the widths differ. Both are one linear layer in the end,
    which is put back in place: the module in `net_` is the user's. In stage 2 it is a
    part of another module, whose parameters are called ``encoder.trunk.<name>``:
    patterns of `optimizer__param_groups` and of callbacks start with ``*`` to find
    them. Parameters of the module that a callback sets are not seen.

    References
    ----------
    .. [1] Sreelatha, Kappiyath, Chaudhuri, Dutta, "DeNetDM: Debiasing by Network Depth
       Modulation", NeurIPS 2024.

    Examples
    --------
    >>> from masktune_sk import DeNetDMClassifier
    >>> from masktune_sk.datasets import make_colored
    >>> from masktune_sk.modules import default_net
    >>> X, y = make_colored(conflict_ratio=0.1, random_state=0, return_X_y=True)
    >>> X = X[:600].reshape(600, -1)
    >>> net = default_net(X.shape[1:], n_classes=10, max_epochs=3)
    >>> clf = DeNetDMClassifier(net, debiased_branch="shallow", random_state=0)
    >>> clf.fit(X, y[:600]).branch_predict_proba(X[:5], "deep").shape
    (5, 10)
    """

    _parameter_constraints = {
        **BaseDebiasedClassifier._parameter_constraints,
        "shallow_module": [StrOptions({"auto"}), callable],
        "deep_module": [StrOptions({"auto"}), callable],
        "feature_dim": [Interval(Integral, 1, None, closed="left"), None],
        "head_bias": ["boolean"],
        "stage1_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "stage1_lr": [Interval(Real, 0, None, closed="neither")],
        "stage1_weight_decay": [Interval(Real, 0, None, closed="left")],
        "stage1_batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "stage1_average": ["boolean"],
        "stage2_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "stage2_lr": [Interval(Real, 0, None, closed="neither"), None],
        "stage2_weight_decay": [Interval(Real, 0, None, closed="left"), None],
        "poe_weight": [Interval(Real, 0, None, closed="left")],
        "distill_weight": [Interval(Real, 0, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "debiased_branch": [StrOptions({"auto", *BRANCHES})],
        "predict_branch": [StrOptions({"target", *BRANCHES})],
        "freeze_norm": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        shallow_module="auto",
        deep_module="auto",
        feature_dim=None,
        head_bias=True,
        stage1_epochs=None,
        stage1_lr=0.001,
        stage1_weight_decay=0.001,
        stage1_batch_size=None,
        n_init=1,
        stage1_average=False,
        stage2_epochs=None,
        stage2_lr=None,
        stage2_weight_decay=None,
        poe_weight=1.0,
        distill_weight=1.0,
        temperature=2.0,
        debiased_branch="auto",
        predict_branch="target",
        freeze_norm=True,
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
        self.shallow_module = shallow_module
        self.deep_module = deep_module
        self.feature_dim = feature_dim
        self.head_bias = head_bias
        self.stage1_epochs = stage1_epochs
        self.stage1_lr = stage1_lr
        self.stage1_weight_decay = stage1_weight_decay
        self.stage1_batch_size = stage1_batch_size
        self.n_init = n_init
        self.stage1_average = stage1_average
        self.stage2_epochs = stage2_epochs
        self.stage2_lr = stage2_lr
        self.stage2_weight_decay = stage2_weight_decay
        self.poe_weight = poe_weight
        self.distill_weight = distill_weight
        self.temperature = temperature
        self.debiased_branch = debiased_branch
        self.predict_branch = predict_branch
        self.freeze_norm = freeze_norm
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.coverage = coverage
        self.rejection = rejection
        self.memory = memory
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------ stages

    def _fit_stages(self, data):
        self._check(data)
        stage1_epochs = self.stage1_epochs or data.template.max_epochs
        data = replace(data, template=self._with_stage2_params(data.template))
        probe, n_classes = data.probe(), data.n_classes
        target = plan_target(
            data.template, probe, n_classes, self.head_bias, data.precision
        )
        plans = plan_branches(
            self.shallow_module, self.deep_module, probe, n_classes, self.feature_dim
        )
        width = plans["shallow"].feature_dim
        target = replace(target, feature_dim=width)

        branches = train_branches(
            data,
            plans,
            head_bias=self.head_bias,
            n_init=self.n_init,
            average=self.stage1_average,
            debiased=self.debiased_branch,
            max_epochs=stage1_epochs,
            lr=self.stage1_lr,
            optimizer__weight_decay=self.stage1_weight_decay,
            batch_size=self.stage1_batch_size or data.template.batch_size,
        )
        history, labels = branches.history, data.train.labels
        by_biased = softmax(branches.logits[branches.biased], axis=1)
        net = branches.nets.get(self.predict_branch)
        if net is None:
            net, rows = train_target(
                data,
                target,
                branches,
                freeze_norm=self.freeze_norm,
                poe_weight=self.poe_weight,
                distill_weight=self.distill_weight,
                temperature=self.temperature,
            )
            history = history + [{"stage": "target", **row} for row in rows]
        fitted = {
            "feature_dim_": width,
            "head_layer_": target.head,
            **{f"{name}_net_": branch for name, branch in branches.nets.items()},
            "start_scores_": branches.start_scores,
            "role_scores_": branches.role_scores,
            "debiased_branch_": branches.debiased,
            "separation_": branches.separation,
            "conflict_score_": 1 - by_biased[np.arange(len(labels)), labels],
            "train_indices_": data.rows,
            "net_": net,
            "history_": history,
        }
        return fitted, (None, None)

    def _check(self, data):
        """Refuse what no stage could be trained with."""
        if not self.poe_weight + self.distill_weight:
            raise ValueError(
                "poe_weight and distill_weight are both 0, so that stage 2 would train "
                "nothing. Set one of them, or predict_branch='shallow' to leave stage "
                "2 out."
            )
        if data.processes.size > 1:
            raise ValueError(
                f"{data.processes.size} processes train together, and "
                "DeNetDMClassifier trains in one. Start one, without an accelerator."
            )

    def _check_frozen(self, fitted, classes):
        raise ValueError(
            "DeNetDMClassifier can't start from a FrozenEstimator: its target is a new "
            "net that is trained beside two others. Pass the net itself, "
            "estimator=net; a net whose module is an instance starts with its weights."
        )

    def _with_stage2_params(self, template):
        given = {
            "max_epochs": self.stage2_epochs,
            "lr": self.stage2_lr,
            "optimizer__weight_decay": self.stage2_weight_decay,
        }
        given = {name: value for name, value in given.items() if value is not None}
        return clone(template).set_params(**given)

    # ------------------------------------------------------------------ looking

    def _proba_before(self, dataset):
        return self._proba(getattr(self, f"{self.debiased_branch_}_net_"), dataset)

    def branch_predict_proba(self, X, branch):
        """Predict class probabilities by one of the networks alone.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.
        branch : {"shallow", "deep", "target"}
            Which.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), float32
            In the order of `classes_`.
        """
        dataset = self._dataset(X)
        return self._proba(self._net_of(branch), dataset)

    def _net_of(self, branch):
        nets = {name: getattr(self, f"{name}_net_") for name in BRANCHES}
        if self.net_ not in nets.values():
            nets["target"] = self.net_
        if branch not in nets:
            raise ValueError(
                f"branch must be one of {', '.join(map(repr, nets))}; got {branch!r}. "
                "(There is a target unless predict_branch says otherwise.)"
            )
        return nets[branch]

    def layer_report(self, X, y=None, groups=None, **params):
        """Measure what each layer of each network knows of the labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, best such that were not trained on.
        y : array-like of shape (n_samples,), default=None
            Their labels; None: those of the Dataset.
        groups : array-like of shape (n_samples,), default=None
            Their groups, class x bias: then what it knows of the bias too.
        **params : dict
            Parameters of `masktune_sk.inspection.layer_report`.

        Returns
        -------
        report : masktune_sk.inspection.LayerReport
            Effective rank and linear decodability: print it, or plot it.
        """
        source = self._dataset(X).source
        modules = {
            name: getattr(self, f"{name}_net_").module_.encoder for name in BRANCHES
        }
        if self.net_ not in (self.shallow_net_, self.deep_net_):
            modules["target"] = trunk_of(self.net_.module_, self.head_layer_)
        return layer_report(modules, source, labels_of(X, y), groups, **params)

    def _closing_line(self):
        line = f"{super()._closing_line()[:-1]}; debiased branch: "
        line += self.debiased_branch_
        if self.role_scores_ is None:
            return f"{line} (given)."
        shallow, deep = (self.role_scores_[name] for name in BRANCHES)
        n_hard = self.role_scores_["n_hard"]
        return (
            f"{line} (on {n_hard} hard samples shallow {shallow:.2f}, deep {deep:.2f})."
        )
