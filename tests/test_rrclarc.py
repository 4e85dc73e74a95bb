"""What each parameter of `RRClArCClassifier` does, and its own errors."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import TensorDataset

from masktune_sk import MaskTuneClassifier, RRClArCClassifier
from masktune_sk.concepts import ConceptStratifiedKFold
from masktune_sk.exceptions import (
    ConceptWarning,
    FrozenNetWarning,
    StepSizeWarning,
    TargetLayerError,
)
from tests.nets import TinyConvNet, TinyMLP, add_channel_axis, tiny_net, tiny_vectors

METHODS = ("rr-clarc", "a-clarc", "p-clarc", "rp-clarc", "rrr", "none")


def marked_images(n=160, size=8, random_state=0):
    """A bright row says the class; a corner is on most of class 1."""
    rng = np.random.default_rng(random_state)
    y = np.arange(n) % 2
    concept = (rng.random(n) < np.where(y == 1, 0.7, 0.3)).astype(int)
    X = rng.uniform(0, 0.3, (n, 1, size, size)).astype(np.float32)
    rows = np.where(y == 1, size - 2, size - 4)
    X[np.arange(n), :, rows] += 0.5
    X[concept == 1, :, :3, :3] = 1
    masks = np.zeros((n, size, size), dtype=bool)
    masks[concept == 1, :3, :3] = True
    return X, y, concept, masks


def conv_net(**params):
    return tiny_net(**({"max_epochs": 4, "lr": 0.02} | params))


def rrclarc(**params):
    defaults = {"estimator": conv_net(), "refit_epochs": 3, "random_state": 0}
    return RRClArCClassifier(**(defaults | params))


def fit(clf, data):
    X, y, concept, masks = data
    return clf.fit(X, y, concept=concept, artifact_mask=masks)


def weights_of(net):
    return {name: value.clone() for name, value in net.module_.state_dict().items()}


@pytest.fixture(scope="module")
def data():
    return marked_images()


@pytest.fixture(scope="module")
def frozen(data):
    """A net to correct; not to be trained."""
    X, y, *_ = data
    torch.manual_seed(0)
    return FrozenEstimator(conv_net(max_epochs=8).fit(X, y))


@functools.cache
def fitted_clf(method):
    """Don't fit it again."""
    return fit(rrclarc(method=method), marked_images())


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


# ---------------------------------------------------------------- the stages


def test_fitted_attributes_describe_the_stages(method):
    clf = fitted_clf(method)
    assert clf.layer_.name == "features"
    assert clf.layer_.shape == (8, 8, 8)
    assert clf.concept_.directions.shape == (1, 8)
    assert clf.concept_.gap[0] > 0
    trains = method not in ("p-clarc", "rp-clarc")
    assert (clf.refit_lr_ is None) != trains
    if trains:
        assert clf.refit_lr_ == pytest.approx(0.002)
    expected = {"rr-clarc": 0.1, "rrr": 10.0}
    assert clf.penalty_weight_ == expected.get(method)
    for name in ("before", "after"):
        assert getattr(clf, f"sensitivity_{name}_").shape == (2,)
        assert getattr(clf, f"tcav_{name}_").shape == (2,)
    stages = [row["stage"] for row in clf.history_]
    assert stages == ["ERM"] * 4 + ["refit"] * (3 if trains else 0)
    assert len(clf.train_indices_) == 128
    assert set(clf.holdout_accuracy_) == {"before", "after"}
    assert type(clf.net_.module_).__name__ == (
        "TinyConvNet" if trains else "EditedModule"
    )


def test_everything_up_to_the_layer_stays_bit_for_bit(method):
    clf = fitted_clf(method)
    before, after = weights_of(clf.uncorrected_net_), weights_of(clf.net_)
    prefix = "module." if method in ("p-clarc", "rp-clarc") else ""
    changed = {n for n, v in before.items() if not torch.equal(v, after[prefix + n])}
    assert changed == (set() if prefix else {"head.weight", "head.bias"})
    for net in (clf.net_, clf.uncorrected_net_):
        assert (
            all(p.requires_grad for p in net.module_.module.parameters())
            if (prefix and net is clf.net_)
            else all(p.requires_grad for p in net.module_.parameters())
        )
        assert not any(part.training for part in net.module_.modules())


def test_the_holdout_is_what_the_net_predicts(method, data):
    clf = fitted_clf(method)
    X, y, *_ = data
    held = np.setdiff1d(np.arange(len(X)), clf.train_indices_)
    right = clf.predict(X[held]) == y[held]
    assert clf.holdout_accuracy_["after"] == pytest.approx(right.mean())


def test_the_penalty_lowers_the_sensitivity_and_the_control_does_not(data, frozen):
    params = {"estimator": frozen, "validation_fraction": 0, "refit_lr": 0.02}
    rr = fit(rrclarc(**params), data)
    control = fit(rrclarc(method="none", **params), data)
    np.testing.assert_allclose(rr.sensitivity_before_, control.sensitivity_before_)
    assert (rr.sensitivity_after_ < 0.3 * rr.sensitivity_before_).all()
    assert (control.sensitivity_after_ > 0.7 * rr.sensitivity_before_).all()


def test_zero_weight_is_the_control(data):
    zero = fit(rrclarc(penalty_weight=0), data)
    for name, value in weights_of(zero.net_).items():
        expected = weights_of(fitted_clf("none").net_)[name]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", ["rr-clarc", "a-clarc", "none"])
def test_cached_latents_give_the_same_weights(method, data):
    cached, whole = fitted_clf(method), rrclarc(method=method, cache_latents=False)
    fit(whole, data)
    for name, value in weights_of(whole.net_).items():
        expected = weights_of(cached.net_)[name]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)


class CountingNet(TinyConvNet):
    n_samples = 0

    def forward(self, X):
        if type(X) is torch.Tensor:
            type(self).n_samples += len(X)
        return super().forward(X)


def test_the_body_runs_once_with_cached_latents(data):
    X, y, *_ = data
    torch.manual_seed(0)
    frozen = FrozenEstimator(conv_net(module=CountingNet, max_epochs=1).fit(X, y))
    counts = []
    for cache in (True, False):
        CountingNet.n_samples = 0
        params = {"estimator": frozen, "validation_fraction": 0, "refit_epochs": 20}
        fit(rrclarc(cache_latents=cache, **params), data)
        counts.append(CountingNet.n_samples)
    assert counts[1] - counts[0] > 18 * len(X)


def test_no_refit_epochs_keep_the_net(data, frozen):
    params = {"estimator": frozen, "validation_fraction": 0, "refit_epochs": 0}
    clf = fit(rrclarc(**params), data)
    for name, value in weights_of(clf.net_).items():
        assert torch.equal(value, frozen.estimator.module_.state_dict()[name])
    assert clf.refit_lr_ is None


def test_augmented_samples_run_through_the_whole_net(data):
    clf = fit(rrclarc(augment=functools.partial(torch.mul, other=0.9)), data)
    assert clf.sensitivity_after_.sum() < clf.sensitivity_before_.sum()


def test_other_optimizer_and_rate(data, frozen):
    params = {"estimator": frozen, "validation_fraction": 0, "method": "none"}
    clf = fit(rrclarc(refit_optimizer=torch.optim.SGD, refit_lr=0.5, **params), data)
    assert clf.history_[-1]["lr"] == clf.refit_lr_ == 0.5
    adam = fit(rrclarc(refit_lr=0.5, **params), data)
    assert not torch.equal(adam.net_.module_.head.bias, clf.net_.module_.head.bias)


def test_rate_of_sgd_is_reduced_where_the_penalty_is_steep(data, frozen):
    params = {"estimator": frozen, "validation_fraction": 0, "refit_epochs": 5}
    params |= {"refit_optimizer": torch.optim.SGD, "penalty_weight": 1e4}
    with pytest.warns(StepSizeWarning, match="reduced to"):
        clf = fit(rrclarc(refit_lr=1.0, **params), data)
    assert clf.refit_lr_ < 0.1
    losses = [row["train_loss"] for row in clf.history_]
    assert losses[-1] < losses[0]
    safe = fit(rrclarc(refit_lr=clf.refit_lr_ / 2, **params), data)
    assert safe.refit_lr_ == clf.refit_lr_ / 2


# ---------------------------------------------------------------- the estimator


def test_the_given_net_is_never_changed(data, frozen, method):
    before = weights_of(frozen.estimator)
    fit(rrclarc(estimator=frozen, method=method, validation_fraction=0), data)
    for name, value in frozen.estimator.module_.state_dict().items():
        assert torch.equal(value, before[name])
    assert not frozen.estimator.module_.features._forward_hooks


def test_a_frozen_estimator_of_ours_stands_for_its_net(data):
    X, y, *_ = data
    erm = MaskTuneClassifier(conv_net(), random_state=0).fit(X, y)
    clf = rrclarc(estimator=FrozenEstimator(erm), validation_fraction=0)
    fit(clf, data)
    np.testing.assert_allclose(
        clf.uncorrected_net_.predict_proba(X), erm.predict_proba(X), atol=1e-6
    )
    with pytest.warns(FrozenNetWarning):
        fit(clf.set_params(validation_fraction=0.2), data)
    with pytest.raises(NotFittedError, match="MaskTuneClassifier inside is not fitted"):
        fit(rrclarc(estimator=FrozenEstimator(MaskTuneClassifier())), data)


def test_an_edited_net_can_be_corrected_again(data):
    clf = rrclarc(estimator=FrozenEstimator(fitted_clf("p-clarc")))
    clf.set_params(validation_fraction=0, cav=np.eye(8)[0])
    X, y, *_ = data
    clf.fit(X, y)
    assert clf.layer_.name == "module.features"
    np.testing.assert_allclose(
        clf.uncorrected_net_.predict_proba(X),
        fitted_clf("p-clarc").predict_proba(X),
        atol=1e-6,
    )


class Proba(TinyConvNet):
    def forward(self, X):
        return torch.softmax(super().forward(X), dim=1)


def test_probabilities_and_logits_are_corrected_alike(data):
    torch.manual_seed(0)
    X, y, *_ = data
    logits = conv_net().fit(X, y)
    proba = conv_net(module=Proba, criterion=nn.NLLLoss, max_epochs=1).fit(X, y)
    proba.module_.load_state_dict(logits.module_.state_dict())
    params = {"validation_fraction": 0, "refit_lr": 0.01}
    a, b = (
        fit(rrclarc(estimator=FrozenEstimator(net), **params), data)
        for net in (logits, proba)
    )
    # One has the derivatives of log-probabilities: less those of their mean.
    assert (b.sensitivity_after_ < b.sensitivity_before_).all()
    np.testing.assert_allclose(a.concept_.gap, b.concept_.gap, rtol=1e-4)
    assert b.predict_proba(X).sum(axis=1) == pytest.approx(1, abs=1e-5)


class SumOfOutputs(nn.CrossEntropyLoss):
    """A subclass is cross-entropy too."""


def test_class_weights_of_the_criterion_count(data, frozen):
    X, y, *_ = data
    net = conv_net(criterion=SumOfOutputs, criterion__weight=torch.tensor([1.0, 50.0]))
    torch.manual_seed(0)
    weighted = FrozenEstimator(net.fit(X, y))
    weighted.estimator.module_.load_state_dict(frozen.estimator.module_.state_dict())
    params = {"validation_fraction": 0, "refit_lr": 0.05}
    shares = [
        fit(rrclarc(estimator=e, **params), data).predict_proba(X)[:, 1].mean()
        for e in (frozen, weighted)
    ]
    assert shares[1] > shares[0]


class TwoOutputs(TinyConvNet):
    def forward(self, X):
        return super().forward(X), X.mean()


class FirstOutput(nn.CrossEntropyLoss):
    def forward(self, outputs, y):
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        return super().forward(outputs, y)


def test_nets_with_several_outputs(data):
    net = conv_net(module=TwoOutputs, criterion=FirstOutput)
    clf = fit(rrclarc(estimator=net), data)
    assert (clf.sensitivity_after_ < clf.sensitivity_before_).all()


def test_vectors(data):
    X, y = tiny_vectors(160)
    concept = (np.random.default_rng(0).random(160) < 0.3 + 0.4 * y).astype(int)
    X[:, 1] += 3 * concept
    clf = rrclarc(estimator=tiny_net(TinyMLP), refit_lr=0.02).fit(X, y, concept=concept)
    assert clf.layer_.name == "layers.1"
    assert (clf.sensitivity_after_ < clf.sensitivity_before_).all()
    mask = np.zeros_like(X, dtype=bool)
    mask[concept == 1, 1] = True
    clf = rrclarc(estimator=tiny_net(TinyMLP), method="rrr", penalty_weight=1.0)
    clf.fit(X, y, artifact_mask=mask)
    assert clf.concept_ is None
    assert clf.sensitivity_before_ is None
    assert clf.artifact_relevance_after_ < clf.artifact_relevance_before_


def test_relevance_is_the_share_of_input_times_gradient(data):
    X, y, _, masks = data
    masks = masks.copy()
    masks[::2] = False
    clf = fit(rrclarc(), (*data[:3], masks))
    shown = np.flatnonzero(masks.any(axis=(1, 2)))
    relevance = clf.artifact_relevance(X, masks)
    for name, net in (("before", clf.uncorrected_net_), ("after", clf.net_)):
        images = torch.from_numpy(X[shown]).requires_grad_()
        module = net.module_.eval()
        module(images).max(dim=1).values.sum().backward()
        share = (images * images.grad).sum(dim=1).abs().detach().numpy()
        inside = (share * masks[shown]).sum(axis=(1, 2)) / share.sum(axis=(1, 2))
        assert relevance[name] == pytest.approx(inside.mean(), rel=1e-5)
    trained = np.isin(clf.train_indices_, shown)
    rows = clf.train_indices_[trained]
    of_train = clf.artifact_relevance(X[rows], masks[rows])
    assert clf.artifact_relevance_before_ == pytest.approx(of_train["before"])
    assert clf.artifact_relevance_after_ == pytest.approx(of_train["after"])
    assert fit(rrclarc(), (*data[:3], None)).artifact_relevance_after_ is None
    with pytest.raises(ValueError, match="the size of the samples"):
        clf.artifact_relevance(X, masks[:, :7])
    with pytest.raises(ValueError, match="nothing to penalise or to measure"):
        clf.artifact_relevance(X, np.zeros_like(masks))


class TokenNet(nn.Module):
    """Patches as tokens, attention, and the mean of the tokens."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, X):
        tokens = self.patches(X).flatten(2).transpose(1, 2)
        return self.head(self.block(tokens).mean(dim=1))


@pytest.mark.parametrize(("layer", "shape"), [(None, (4, 8)), ("patches", (8, 2, 2))])
def test_tokens(data, layer, shape):
    net = conv_net(module=TokenNet, max_epochs=10)
    clf = fit(rrclarc(estimator=net, target_layer=layer, refit_epochs=6), data)
    assert clf.layer_.shape == shape
    assert clf.sensitivity_after_.sum() < clf.sensitivity_before_.sum()
    clf = fit(rrclarc(estimator=net, target_layer=layer, method="p-clarc"), data)
    np.testing.assert_allclose(
        clf.concept_score(data[0]), clf.concept_.z_clean[0], atol=1e-5
    )


def test_validation_split_of_the_users_own(data):
    X, y, *_ = data
    other = TensorDataset(torch.from_numpy(X[:20]), torch.from_numpy(y[:20]))
    splits = ValidSplit(3, stratified=True), predefined_split(other)
    for split in splits:
        for method in ("rr-clarc", "rrr"):
            net = conv_net(train_split=split)
            clf = rrclarc(estimator=net, method=method, validation_fraction=0)
            fit(clf, data)
            assert clf.holdout_accuracy_ is None
            # Samples of another dataset have no masks.
            validates = method == "rr-clarc" or split is splits[0]
            assert ("valid_acc" in clf.history_[-1]) == validates


@pytest.mark.parametrize("cache", [True, False])
def test_bfloat16_is_nearly_float32(data, frozen, cache):
    params = {"estimator": frozen, "validation_fraction": 0, "refit_lr": 0.02}
    params |= {"cache_latents": cache}
    clf, expected = (
        fit(rrclarc(precision=precision, **params), data)
        for precision in ("bf16", "float32")
    )
    for name in ("sensitivity_before_", "sensitivity_after_"):
        got, wanted = getattr(clf, name), getattr(expected, name)
        np.testing.assert_allclose(got, wanted, rtol=0.2, atol=0.1)


# ---------------------------------------------------------------- the concept


def test_signal_is_the_difference_of_means_within_classes(data):
    from masktune_sk._rrclarc._latents import latents_of
    from masktune_sk.data import ArraySource

    X, y, concept, _ = data
    clf = fitted_clf("rr-clarc")
    rows = clf.train_indices_
    V = latents_of(clf.uncorrected_net_, ArraySource(X[rows]), clf.layer_)
    np.testing.assert_allclose(
        V[:5],
        clf.uncorrected_net_.module_.features(torch.from_numpy(X[rows[:5]]))
        .amax(dim=(2, 3))
        .detach(),
        atol=1e-6,
    )
    V, c, labels = V.astype(np.float64), concept[rows], y[rows]
    share = [np.sum(c[labels == k]) / c.sum() for k in (0, 1)]
    w = sum(
        share[k]
        * (
            V[(labels == k) & (c == 1)].mean(axis=0)
            - V[(labels == k) & (c == 0)].mean(axis=0)
        )
        for k in (0, 1)
    )
    direction = clf.concept_.directions[0]
    np.testing.assert_allclose(direction, w / np.linalg.norm(w), rtol=0, atol=1e-12)
    np.testing.assert_allclose(clf.concept_.gap[0], np.linalg.norm(w), rtol=1e-10)


def test_scores_tell_the_concept_until_it_is_projected_out(data):
    X, _, concept, _ = data
    assert roc_auc_score(concept, fitted_clf("rr-clarc").concept_score(X)) > 0.95
    clf = fitted_clf("p-clarc")
    np.testing.assert_allclose(clf.concept_score(X), clf.concept_.z_clean[0], atol=1e-5)
    np.testing.assert_allclose(clf.sensitivity_after_, 0, atol=1e-5)
    reactive = fitted_clf("rp-clarc")
    middle = (reactive.concept_.z_clean + reactive.concept_.z_artifact)[0] / 2
    assert reactive.concept_score(X).max() <= middle
    before = fitted_clf("rr-clarc").concept_score(X)
    low = before < middle
    np.testing.assert_allclose(reactive.concept_score(X)[low], before[low], atol=1e-5)


def test_measures_of_new_samples_are_those_of_the_attributes(data):
    X, _, concept, _ = data
    clf = fitted_clf("rr-clarc")
    rows = clf.train_indices_
    found = clf.concept_sensitivity(X[rows[concept[rows] == 1]])
    for name in ("tcav_before", "tcav_after", "sensitivity_before"):
        np.testing.assert_allclose(found[name], getattr(clf, f"{name}_"), rtol=1e-5)
    assert found.keys() == {
        f"{measure}_{when}"
        for measure in ("tcav", "sensitivity")
        for when in ("before", "after")
    }


def test_unknown_samples_are_left_out_and_the_first_one_counts(data):
    X, y, concept, _ = data
    unknown = concept.astype(float)
    unknown[100:] = np.nan
    clf = rrclarc(estimator=conv_net(), validation_fraction=0, refit_epochs=1)
    clf.fit(X, y, concept=unknown)
    assert clf.concept_.n_concept[0] == concept[:100].sum()
    minus = np.where(np.isnan(unknown), -1, unknown)
    again = clone(clf).fit(X, y, concept=minus)
    np.testing.assert_array_equal(clf.concept_.directions, again.concept_.directions)
    first = np.flatnonzero(concept)
    order = np.r_[first, np.flatnonzero(concept == 0)]
    clf.fit(X[order], y[order], concept=concept[order])
    assert clf.concept_.n_concept[0] == concept.sum()


def test_several_concepts_at_once(data):
    X, y, concept, _ = data
    X = X.copy()
    second = np.random.default_rng(1).integers(2, size=len(X))
    X[second == 1] += np.eye(8, dtype=np.float32)
    both = np.c_[concept, second]
    clf = rrclarc(refit_lr=0.02).fit(X, y, concept=both)
    assert clf.concept_.directions.shape == (2, 8)
    assert clf.sensitivity_before_.shape == clf.tcav_after_.shape == (2, 2)
    assert clf.sensitivity_after_.sum() < clf.sensitivity_before_.sum()
    assert clf.concept_score(X).shape == (len(X), 2)
    clf = rrclarc(method="p-clarc").fit(X, y, concept=both)
    np.testing.assert_allclose(
        clf.concept_score(X),
        np.broadcast_to(clf.concept_.z_clean, (len(X), 2)),
        atol=1e-4,
    )


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_other_pooling(data, frozen, pool):
    params = {"estimator": frozen, "validation_fraction": 0, "penalty_weight": 10.0}
    clf = fit(rrclarc(pool=pool, refit_lr=0.02, **params), data)
    assert clf.concept_.directions.shape == (1, 8 if pool == "mean" else 512)
    assert (clf.sensitivity_after_ < clf.sensitivity_before_).all()
    clf = fit(rrclarc(pool=pool, method="p-clarc"), data)
    np.testing.assert_allclose(
        clf.concept_score(data[0]), clf.concept_.z_clean[0], atol=1e-5
    )


def test_a_direction_as_an_array_needs_no_concept(data):
    X, y, concept, _ = data
    direction = fitted_clf("rr-clarc").concept_.directions[0]
    gap = fitted_clf("rr-clarc").concept_.gap[0]
    clf = rrclarc(cav=gap * direction).fit(X, y)
    expected = weights_of(fitted_clf("rr-clarc").net_)
    # Its length stands for the gap.
    for name, value in weights_of(clf.net_).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    for method in ("p-clarc", "rp-clarc", "a-clarc"):
        with pytest.raises(ValueError, match="which samples show the artifact"):
            rrclarc(cav=direction, method=method).fit(X, y)
    clf = rrclarc(cav=direction, method="p-clarc").fit(X, y, concept=concept)
    assert clf.concept_.gap[0] == pytest.approx(gap, rel=1e-4)


def test_an_earlier_layer_leaves_more_to_train(data):
    clf = fit(rrclarc(target_layer="features.1"), data)
    before, after = weights_of(clf.uncorrected_net_), weights_of(clf.net_)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        "features.3.weight",
        "features.3.bias",
        "head.weight",
        "head.bias",
    }
    assert clf.sensitivity_after_.sum() < clf.sensitivity_before_.sum()


def test_class_specific_penalty(data, frozen):
    X, y, concept, masks = data
    names = np.array(["water", "land"])[y]
    params = {"estimator": frozen, "validation_fraction": 0, "refit_lr": 0.02}
    clf = rrclarc(gradient_target="land", penalty_weight=10.0, **params)
    clf.fit(X, names, concept=concept)
    ratio = clf.sensitivity_after_ / clf.sensitivity_before_
    assert ratio[0] < 0.3
    assert ratio[1] > 2 * ratio[0]


@pytest.mark.parametrize("target", ["all_random", "sum", "target", "max"])
def test_every_gradient_target_trains(data, target):
    clf = fit(rrclarc(gradient_target=target, refit_lr=0.02), data)
    assert all(np.isfinite(row["train_loss"]) for row in clf.history_)
    other = fitted_clf("rr-clarc").net_.module_.head.weight
    assert not torch.equal(clf.net_.module_.head.weight, other)


def test_official_scale_is_another_weight(data, frozen):
    params = {"estimator": frozen, "validation_fraction": 0}
    ours = fit(rrclarc(penalty_weight=0.1, **params), data)
    factor = ours.layer_.n_positions**2 * ours.concept_.gap[0] ** 2
    official = {"scale": "unit", "spatial": "mean", "penalty_weight": 0.1 * factor}
    same = fit(rrclarc(**official, **params), data)
    for name, value in weights_of(same.net_).items():
        expected = weights_of(ours.net_)[name]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)


def test_right_reasons_lower_the_gradient_in_the_mask(data, frozen):
    from masktune_sk.objectives import InputGradientModule, RightReasons

    X, _, concept, masks = data
    rows = concept == 1
    batch = torch.from_numpy(np.concatenate([X, masks[:, None]], axis=1)[rows])

    def size(clf, norm):
        outputs = InputGradientModule(
            copy.deepcopy(clf.net_.module_), [], log_proba=False
        )(batch.float())
        return RightReasons(nn.CrossEntropyLoss(), 1, norm=norm).penalty(outputs).item()

    params = {"estimator": frozen, "validation_fraction": 0, "refit_lr": 0.02}
    control = fit(rrclarc(method="none", **params), data)
    for norm, share in (("l2", 0.9), ("cosine", 1)):
        clf = rrclarc(method="rrr", penalty=norm, penalty_weight=100.0, **params)
        assert size(fit(clf, data), norm) < share * size(control, norm)


# ---------------------------------------------------------------- persistence


def test_copies_predict_the_same(method, data):
    X, *_ = data
    clf = fitted_clf(method)
    proba, scores = clf.predict_proba(X), clf.concept_score(X)
    for again in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        np.testing.assert_array_equal(again.predict_proba(X), proba)
        np.testing.assert_array_equal(again.concept_score(X), scores)


def test_memory_is_shared_by_the_methods(data, tmp_path):
    for method in ("none", "rr-clarc", "p-clarc"):
        clf = fit(rrclarc(method=method, memory=tmp_path), data)
        np.testing.assert_array_equal(
            clf.predict_proba(data[0]), fitted_clf(method).predict_proba(data[0])
        )
    assert len(list(tmp_path.rglob("*.pkl"))) == 1


# ---------------------------------------------------------------- the ecosystem


@pytest.mark.parametrize("routing", [False, True])
def test_concept_reaches_a_pipeline_in_a_search(data, routing):
    X, y, concept, _ = data
    with config_context(enable_metadata_routing=routing):
        clf = rrclarc(refit_epochs=1, min_concept_samples=3)
        if routing:
            clf.set_fit_request(concept=True)
        pipeline = make_pipeline(FunctionTransformer(add_channel_axis), clf)
        grid = {"rrclarcclassifier__penalty_weight": [0.0, 0.1]}
        search = GridSearchCV(pipeline, grid, cv=2)
        name = "concept" if routing else "rrclarcclassifier__concept"
        search.fit(X[:, 0], y, **{name: concept})
        fitted = search.best_estimator_[-1]
    assert fitted.concept_.n_concept[0] <= concept.sum()
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_folds_by_class_and_concept(data):
    X, y, concept, _ = data
    for train, _ in ConceptStratifiedKFold(2).split(X, y, concept):
        assert concept[train].sum() > 20


# ---------------------------------------------------------------- bad input


class NeverTrain(Callback):
    def on_batch_begin(self, net, **kwargs):
        raise AssertionError("trained")


@pytest.mark.parametrize(
    ("params", "change", "message"),
    [
        (
            {},
            {"concept": None},
            r"pass concept to fit.*set_fit_request\(concept=True\)",
        ),
        ({"method": "p-clarc"}, {"concept": None}, "which samples show the artifact"),
        ({}, {"concept": np.zeros(160)}, "no sample with the artifact"),
        ({}, {"concept": np.arange(160) < 3}, "at least 5"),
        ({}, {"concept": np.ones(3)}, "a value for each sample"),
        ({}, {"concept": np.full(160, 2)}, r"-1 or NaN \(unknown\)"),
        ({"cav_scope": [7]}, {}, r"labels that y does not have: \[7\]"),
        ({"cav_scope": [0], "min_concept_samples": 40}, {}, "No class in scope"),
        ({"cav": "pca"}, {}, "cav must be"),
        ({"cav": np.ones(7)}, {}, r"shape \(8,\)"),
        ({"target_layer": "feature"}, {}, "is not a layer of TinyConvNet"),
        ({"target_layer": "head"}, {}, "No trainable parameters run after"),
        ({"method": "rrr"}, {"artifact_mask": None}, r"shape \(n_samples, 8, 8\)"),
        (
            {"method": "rrr"},
            {"artifact_mask": np.ones((160, 7, 8))},
            "the size of the samples",
        ),
        (
            {"method": "rrr"},
            {"artifact_mask": np.ones((16, 8, 8))},
            "for each of the 160",
        ),
        ({"method": "rrr"}, {"artifact_mask": np.zeros((160, 8, 8))}, "everywhere"),
        ({"method": "rrr"}, {"artifact_mask": np.full((160, 8, 8), 3)}, "values of"),
        ({}, {"artifact_mask": np.ones((160, 7, 8))}, "the size of the samples"),
        ({"method": "rrr", "augment": torch.abs}, {}, "Leave augment out"),
        ({"method": "rrr", "penalty": "l1"}, {}, "'l2' or 'cosine'"),
        ({"penalty": "cosine"}, {}, "'l2' or 'l1'"),
        ({"gradient_target": "sky"}, {}, r"a class of y \(\[0, 1\]\); got 'sky'"),
        ({"method": "clarc"}, {}, "'method' parameter"),
        ({"penalty_weight": -1.0}, {}, "'penalty_weight' parameter"),
        ({"estimator__criterion": nn.MultiMarginLoss}, {}, "needs logits"),
    ],
)
def test_bad_input_is_refused_before_training(data, params, change, message):
    X, y, concept, masks = data
    known = {"concept": concept, "artifact_mask": masks} | change
    clf = rrclarc(estimator=conv_net(callbacks=[NeverTrain()])).set_params(**params)
    if "estimator__criterion" in params:
        clf.estimator.set_params(
            predict_nonlinearity=functools.partial(torch.softmax, dim=-1)
        )
    with pytest.raises(ValueError, match=message):
        clf.fit(X, y, **known)
    with pytest.raises(NotFittedError):
        clf.predict(X)


def test_target_layer_error_is_told_apart(data):
    with pytest.raises(TargetLayerError):
        fit(rrclarc(target_layer="nothing"), data)


def test_artifact_and_class_that_can_not_be_told_apart_warn(data):
    X, y, *_ = data
    with pytest.warns(ConceptWarning, match="cannot be told apart"):
        rrclarc(refit_epochs=1).fit(X, y, concept=y)


def test_without_a_direction_there_is_nothing_to_measure(data):
    X, y, *_ = data
    clf = rrclarc(method="none", refit_epochs=1).fit(X, y)
    assert clf.concept_ is None
    for measure in (clf.concept_score, clf.concept_sensitivity):
        with pytest.raises(ValueError, match="no direction to measure along"):
            measure(X)
        with pytest.raises(NotFittedError):
            getattr(rrclarc(), measure.__name__)(X)
