"""What each parameter of `MaskTuneClassifier` does, and its own errors."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Checkpoint, EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from masktune_sk import OFFICIAL_MASKTUNE, MaskTuneClassifier
from masktune_sk.exceptions import (
    AccuracyFallWarning,
    EmptyMaskWarning,
    FrozenNetWarning,
    TargetLayerError,
)
from masktune_sk.modules import SmallConvNet, default_net
from masktune_sk.saliency import GradCAM, InputXGradient
from tests.nets import TinyConvNet, TinyMLP, tiny_images, tiny_net, tiny_vectors


def masktune(**params):
    """On `tiny_images`: a tenth of each image is masked."""
    defaults = {
        "estimator": tiny_net(max_epochs=8, batch_size=8),
        "threshold_rule": "quantile",
        "mask_threshold": 0.1,
        "random_state": 0,
    }
    return MaskTuneClassifier(**(defaults | params))


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def weights(net):
    return flat(net.module_)


def nothing(net, X, target):
    """A saliency method that sees nothing."""
    return torch.zeros(len(X), *X.shape[2:])


@pytest.fixture(scope="module")
def images():
    return tiny_images()


@pytest.fixture(scope="module")
def fitted(images):
    """Don't fit it again."""
    return masktune(store_maps=True).fit(*images)


# ---------------------------------------------------------------- the stages


def test_fitted_attributes_describe_the_stages(fitted, images):
    X, _ = images
    assert fitted.classes_.tolist() == [0, 1]
    assert fitted.n_features_in_ == 1
    assert fitted.input_shape_ == (1, 12, 12)
    assert isinstance(fitted.erm_net_, NeuralNetClassifier)
    assert fitted.layer_.name == "features"
    assert len(fitted.train_indices_) == 48
    assert fitted.maps_.shape == (48, 12, 12)
    assert 0.08 <= fitted.masked_fraction_ <= 0.12
    assert fitted.n_empty_masks_ < 24
    assert len(fitted.calibration_scores_) == 12
    assert set(fitted.holdout_accuracy_) == {"before", "after"}


def test_history_covers_both_stages(fitted):
    stages = [(row["stage"], row["epoch"]) for row in fitted.history_]
    assert stages == [*(("ERM", i) for i in range(1, 9)), ("refit 1", 1)]
    for row in fitted.history_:
        assert {"lr", "train_loss", "valid_loss", "valid_acc", "dur"} <= set(row)
        assert all(isinstance(value, int | float | str) for value in row.values())


def test_holdout_is_never_trained_on(images):
    X, y = images
    clf = masktune().fit(X, y)
    held = np.setdiff1d(np.arange(len(X)), clf.train_indices_)
    other = X.copy()
    other[held] = 0.5
    again = masktune().fit(other, y)
    assert torch.equal(weights(again.net_), weights(clf.net_))
    assert np.bincount(y[held]).tolist() == [6, 6]


def test_zero_refit_epochs_keep_the_predictions_of_erm(images):
    X, y = images
    clf = masktune(refit_epochs=0).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), clf.erm_net_.predict_proba(X))
    assert clf.holdout_accuracy_["before"] == clf.holdout_accuracy_["after"]


def test_masking_none_is_erm_continued(images):
    X, y = images
    clf = masktune(masking="none").fit(X, y)
    assert clf.masked_fraction_ == clf.n_empty_masks_ == 0
    # as are masks that hide nothing
    with pytest.warns(EmptyMaskWarning, match="48 of 48 training samples"):
        other = masktune(saliency=nothing).fit(X, y)
    assert torch.equal(weights(other.net_), weights(clf.net_))


def test_controls_share_the_erm_stage(fitted, images):
    for masking in ("none", "random"):
        control = masktune(masking=masking).fit(*images)
        assert torch.equal(weights(control.erm_net_), weights(fitted.erm_net_))
        assert not torch.equal(weights(control.net_), weights(fitted.net_))


def test_random_masks_have_the_area_of_the_saliency_masks(fitted, images):
    control = masktune(masking="random").fit(*images)
    assert control.masked_fraction_ == pytest.approx(fitted.masked_fraction_, abs=1e-12)
    assert control.n_empty_masks_ == fitted.n_empty_masks_


def test_controls_shuffle_the_refit_alike(images):
    kinds = [masktune(masking=m, saliency=nothing) for m in ("random", "none")]
    with pytest.warns(EmptyMaskWarning):
        random, none = (weights(clf.fit(*images).net_) for clf in kinds)
    assert torch.equal(random, none)


def test_refit_starts_from_erm_and_trains_the_masked_images(images):
    """The refit by hand: a plain torch loop over `mask(X)`."""
    X, y = images
    net = tiny_net(
        max_epochs=2,
        optimizer=torch.optim.SGD,
        lr=0.1,
        optimizer__momentum=0.9,
        batch_size=60,
        iterator_train__shuffle=False,
        module__width=4,
    )
    masked = masktune(estimator=net, validation_fraction=0, mask_fill=0.25)
    erm = clone(masked).set_params(refit_epochs=0).fit(X, y)
    _, masks = erm.mask(X)
    assert not masks.all()
    X_masked = np.where(masks[:, None], X, np.float32(0.25))
    module = TinyConvNet(width=4)
    module.load_state_dict(erm.net_.module_.state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    logits = module(torch.from_numpy(X_masked))
    nn.functional.cross_entropy(logits, torch.from_numpy(y)).backward()
    optimizer.step()

    # the first step is plain SGD, if the momentum starts anew
    fresh = clone(masked).set_params(refit_optimizer="fresh").fit(X, y)
    torch.testing.assert_close(weights(fresh.net_), flat(module))
    carried = masked.fit(X, y)
    assert not torch.allclose(weights(carried.net_), flat(module))


@pytest.mark.parametrize(
    "params",
    [
        {"refit_lr": 1e-4},
        {"refit_epochs": 3},
        {"refit_optimizer": "fresh"},
        {"mask_fill": 1.0},
        {"mask_fill": "mean"},
        {"mask_fill": [0.7]},
        {"saliency": "layercam"},
        {"saliency": "input_gradient"},
        {"target_layer": "features.2"},
        {"mask_threshold": 0.3},
        {"n_mask_rounds": 2},
        {"augment": torch.neg},
    ],
    ids=str,
)
def test_parameter_changes_the_refit(fitted, images, params):
    clf = masktune(**params).fit(*images)
    assert not torch.equal(weights(clf.net_), weights(fitted.net_))


def test_refit_learning_rate_and_epochs_are_in_the_history(images):
    clf = masktune(refit_lr=1e-4, refit_epochs=3).fit(*images)
    refit = [row for row in clf.history_ if row["stage"] != "ERM"]
    assert [row["lr"] for row in refit] == [1e-4] * 3


def test_refit_continues_at_the_rate_erm_ended_with(images):
    schedule = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.1)
    net = tiny_net(callbacks=[schedule], max_epochs=4, batch_size=8)
    clf = masktune(estimator=net).fit(*images)
    rates = [row["lr"] for row in clf.history_]
    np.testing.assert_allclose(rates[:4], [1e-2, 1e-2, 1e-3, 1e-3])
    # the schedule stepped after the last epoch, and is not stepped any more
    assert rates[4] == pytest.approx(1e-4)


def test_checkpoint_cannot_undo_the_refit(images, tmp_path):
    checkpoint = Checkpoint(dirname=tmp_path, load_best=True)
    net = tiny_net(callbacks=[checkpoint], max_epochs=8, batch_size=8)
    clf = masktune(estimator=net).fit(*images)
    assert not torch.equal(weights(clf.net_), weights(clf.erm_net_))


def test_early_stopping_ends_erm_and_not_the_fit(images):
    stop = EarlyStopping(patience=2, threshold=10.0)
    net = tiny_net(callbacks=[stop], max_epochs=50, batch_size=8)
    clf = masktune(estimator=net).fit(*images)
    stages = [row["stage"] for row in clf.history_]
    assert stages.count("ERM") < 10
    assert stages.count("refit 1") == 1


# ---------------------------------------------------------------- rounds


def test_accumulated_rounds_hide_more(images):
    once = masktune().fit(*images)
    twice = masktune(n_mask_rounds=2).fit(*images)
    anew = masktune(n_mask_rounds=2, accumulate_masks=False).fit(*images)
    assert twice.masked_fraction_ > once.masked_fraction_ + 0.02
    assert anew.masked_fraction_ == pytest.approx(once.masked_fraction_, abs=0.02)
    assert [row["stage"] for row in twice.history_][-2:] == ["refit 1", "refit 2"]


# ---------------------------------------------------------------- best epoch, official


def test_mask_from_best_looks_at_the_best_epoch(images):
    clf = masktune(mask_from="best").fit(*images)
    accuracy = [row["valid_acc"] for row in clf.history_ if row["stage"] == "ERM"]
    best = int(np.argmax(accuracy)) + 1
    net = tiny_net(max_epochs=best, batch_size=8)
    short = masktune(estimator=net, refit_epochs=0).fit(*images)
    assert torch.equal(weights(clf.erm_net_), weights(short.net_))
    # the refit starts from the last epoch, whatever was looked at
    last = masktune(mask_from="best", refit_epochs=0).fit(*images)
    assert torch.equal(
        weights(last.net_), weights(masktune(refit_epochs=0).fit(*images).net_)
    )


def test_official_recipe_runs_and_names_parameters(images):
    assert set(OFFICIAL_MASKTUNE) <= set(MaskTuneClassifier().get_params(deep=False))
    recipe = OFFICIAL_MASKTUNE | {"mask_threshold": 0.5}
    clf = MaskTuneClassifier(
        tiny_net(max_epochs=8, batch_size=8), random_state=0, **recipe
    ).fit(*images)
    X, _ = images
    before, after = clf.erm_net_.predict_proba(X), clf.net_.predict_proba(X)
    product = np.exp(before * after)
    expected = product.max(axis=1) / product.sum(axis=1)
    np.testing.assert_allclose(clf.selection_score(X), expected, rtol=1e-6)


# ---------------------------------------------------------------- looking


def test_mask_shows_what_the_refit_saw(fitted, images):
    X, _ = images
    X_masked, masks = fitted.mask(X)
    assert masks.dtype == bool
    np.testing.assert_array_equal(X_masked[:, 0][masks], X[:, 0][masks])
    assert (X_masked[:, 0][~masks] == 0).all()
    train = masks[fitted.train_indices_]
    assert 1 - train.mean() == pytest.approx(fitted.masked_fraction_, abs=1e-6)
    assert X_masked.dtype == X.dtype


def test_mask_keeps_the_dtype_that_can_hold_the_fill(images):
    X, y = images
    X = (100 * X).astype(np.uint8)
    assert masktune().fit(X, y).mask(X)[0].dtype == np.uint8
    assert masktune(mask_fill=0.5).fit(X, y).mask(X)[0].dtype == np.float32


def test_fill_mean_is_the_mean_of_each_channel():
    X, y = tiny_images(n_channels=2)
    X[:, 1] += 5
    net = tiny_net(module__n_channels=2, max_epochs=8, batch_size=8)
    clf = masktune(estimator=net, mask_fill="mean").fit(X, y)
    expected = X[clf.train_indices_].mean(axis=(0, 2, 3))
    np.testing.assert_allclose(clf.mask_fill_, expected, rtol=1e-5)


def test_saliency_maps_of_both_nets_and_sizes(fitted, images):
    X, _ = images
    for net in ("refit", "erm"):
        maps = fitted.saliency_maps(X, net=net)
        assert maps.shape == (60, 12, 12)
        assert maps.min() >= 0
        assert maps.max() <= 1
    assert not np.array_equal(maps, fitted.saliency_maps(X))
    with pytest.raises(ValueError, match="'refit' or 'erm'"):
        fitted.saliency_maps(X, net="last")


def test_small_maps_are_resized_unless_asked_not_to():
    X, y = tiny_images(n=40, size=16)
    net = default_net((1, 16, 16), 2, max_epochs=3)
    clf = masktune(estimator=net).fit(X, y)
    assert clf.saliency_maps(X, resize=False).shape == (40, 8, 8)
    assert clf.saliency_maps(X).shape == (40, 16, 16)


def test_saliency_target_is_the_label_or_left_to_the_net(images):
    X, y = images
    seen = []

    def spy(net, X, target):
        seen.append(target)
        return X[:, 0]

    clf = masktune(saliency=spy, saliency_target="true").fit(X, y)
    # a few rows are looked at before the training, to see that it works
    assert torch.cat(seen[1:]).tolist() == y[clf.train_indices_].tolist()
    seen.clear()
    masktune(saliency=spy).fit(X, y)
    assert set(seen) == {None}


def test_saliency_of_the_users_own(images):
    X, y = images

    def bright(net, X, target):
        assert not net.module_.training
        return X[:, 0]

    clf = masktune(saliency=bright).fit(X, y)
    np.testing.assert_array_equal(
        clf.mask(X)[1], masktune(saliency=bright).fit(X, y).mask(X)[1]
    )
    hidden = ~clf.mask(X)[1]
    assert (X[:, 0][hidden].min()) > 0.25
    assert isinstance(masktune(saliency=GradCAM()).fit(X, y).saliency_, GradCAM)
    with pytest.raises(TypeError, match=r"pass an instance, GradCAM\(\)"):
        masktune(saliency=GradCAM).fit(X, y)


def test_vectors_are_explained_by_their_features():
    X, y = tiny_vectors()
    X[:, 3] = 3 * (2 * y - 1)
    clf = MaskTuneClassifier(tiny_net(TinyMLP, max_epochs=20), random_state=0).fit(X, y)
    assert isinstance(clf.saliency_, InputXGradient)
    assert clf.layer_ is None
    _, masks = clf.mask(X)
    assert np.argmin(masks.mean(axis=0)) == 3
    # with six features no value is two deviations out: the largest one is hidden
    assert clf.n_empty_masks_ > 0
    assert masks.all(axis=1).sum() == 0


def test_default_net_follows_the_shape_and_trains_raw_pixels():
    X, y = tiny_images(n=60)
    X = (X * 120).astype(np.uint8)
    clf = MaskTuneClassifier(random_state=0).fit(X, y)
    assert isinstance(clf.net_.module_, SmallConvNet)
    assert clf.score(X, y) > 0.9
    X, y = tiny_vectors()
    assert (
        MaskTuneClassifier(random_state=0).fit(1000 * X + 5, y).score(1000 * X + 5, y)
        > 0.75
    )


# ---------------------------------------------------------------- frozen


@pytest.fixture(scope="module")
def trained(images):
    X, y = images
    torch.manual_seed(1)
    return tiny_net(max_epochs=8, batch_size=8).fit(X, y)


def test_frozen_net_skips_erm_and_is_not_trained(images, trained):
    X, y = images
    before, rows = weights(trained), len(trained.history)
    steps = trained.optimizer_.state_dict()["state"][0]["step"].item()
    clf = masktune(estimator=FrozenEstimator(trained), validation_fraction=0).fit(X, y)
    assert torch.equal(weights(trained), before)
    assert len(trained.history) == rows
    assert trained.optimizer_.state_dict()["state"][0]["step"].item() == steps
    assert torch.equal(weights(clf.erm_net_), before)
    assert not torch.equal(weights(clf.net_), before)
    assert clf.erm_net_ is not trained
    assert [row["stage"] for row in clf.history_] == ["ERM"] * 8 + ["refit 1"]


def test_statistics_of_normalisation_can_be_those_of_erm(images):
    def statistics(net):
        return {
            name: value
            for name, value in net.module_.state_dict().items()
            if "running" in name
        }

    net = default_net((1, 8, 8), 2, max_epochs=2)
    for frozen in (True, False):
        clf = masktune(estimator=net, freeze_norm=frozen).fit(*images)
        before, after = statistics(clf.erm_net_), statistics(clf.net_)
        same = [torch.equal(before[name], after[name]) for name in before]
        assert all(same) if frozen else not any(same)
        assert not torch.equal(flat(clf.erm_net_.module_), flat(clf.net_.module_))
        assert not any("train" in vars(m) for m in clf.net_.module_.modules())


@pytest.mark.parametrize("masking", ["saliency", "none"])
@pytest.mark.parametrize("are_vectors", [True, False])
def test_statistics_stay_by_default_where_vectors_are_masked(
    images, are_vectors, masking
):
    X, y = images
    X = X.reshape(len(X), -1) if are_vectors else X
    clf = masktune(estimator=None, masking=masking).fit(X, y)
    before, after = (
        [value for name, value in net.module_.named_buffers() if "running" in name]
        for net in (clf.erm_net_, clf.net_)
    )
    same = all(map(torch.equal, before, after))
    assert same == (are_vectors and masking == "saliency")


def test_a_large_fall_of_the_hold_out_accuracy_is_told(images):
    clf = masktune(refit_lr=3.0, validation_fraction=0.5)
    with pytest.warns(AccuracyFallWarning, match=r"fell .* refit_epochs") as w:
        clf.fit(*images)
    assert w[0].filename == __file__
    before, after = clf.holdout_accuracy_.values()
    assert before - after > 0.15


@pytest.mark.parametrize(
    ("n_lost", "n_won", "n", "told"),
    [(7, 0, 40, True), (14, 0, 100, False), (4, 1, 8, False), (16, 2, 90, True)],
)
def test_a_fall_is_told_if_it_is_large_and_no_chance(n_lost, n_won, n, told):
    before, after = np.ones((2, n), dtype=bool)
    after[:n_lost] = False
    before[n_lost : n_lost + n_won] = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        masktune()._warn_of_a_fall(before, after)
    assert [w.category for w in caught] == [AccuracyFallWarning] * told


def test_frozen_net_warns_that_it_has_seen_the_hold_out(images, trained):
    with pytest.warns(FrozenNetWarning, match="validation_fraction=0 to silence"):
        masktune(estimator=FrozenEstimator(trained)).fit(*images)


def test_frozen_net_must_be_fitted_and_fit_the_data(images, trained):
    X, y = images
    with pytest.raises(NotFittedError, match="not fitted"):
        masktune(estimator=FrozenEstimator(tiny_net())).fit(X, y)
    frozen = masktune(estimator=FrozenEstimator(trained), validation_fraction=0)
    with pytest.raises(ValueError, match="trained for 2 classes"):
        frozen.fit(X, np.arange(60) % 3)
    with pytest.raises(ValueError, match="can't take samples of shape"):
        frozen.fit(np.repeat(X, 2, axis=1), y)
    trimmed = pickle.loads(pickle.dumps(trained))
    trimmed.trim_for_prediction()
    with pytest.raises(ValueError, match="trimmed for prediction"):
        frozen.set_params(estimator=FrozenEstimator(trimmed)).fit(X, y)


# ---------------------------------------------------------------- refused early


class NeverTrainNet(NeuralNetClassifier):
    def train_step(self, batch, **fit_params):
        raise AssertionError("trained")


def untrainable(**params):
    net = tiny_net()
    return NeverTrainNet(**{**net.get_params(deep=False), **params})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mask_threshold": float("nan")}, "mask_threshold"),
        ({"mask_threshold": -1.0}, "mask_threshold"),
        ({"mask_threshold": 1.0}, "fraction to hide"),
        ({"mask_threshold": 0}, "fraction to hide"),
        ({"threshold_rule": "value", "mask_threshold": 1.0}, "scaled to"),
        ({"threshold_rule": "top"}, "threshold_rule"),
        ({"saliency": "lime"}, "saliency"),
        ({"saliency_target": "label"}, "saliency_target"),
        ({"mask_fill": [1.0, 2.0]}, "mask_fill must be"),
        ({"mask_fill": float("nan")}, "mask_fill"),
        ({"mask_fill": [np.inf]}, "mask_fill must be"),
        ({"masking": "off"}, "masking"),
        ({"n_mask_rounds": 0}, "n_mask_rounds"),
        ({"mask_from": "first"}, "mask_from"),
        ({"mask_from": "best", "validation_fraction": 0}, "needs a validation set"),
        ({"refit_epochs": -1}, "refit_epochs"),
        ({"refit_lr": 0.0}, "refit_lr"),
        ({"refit_optimizer": "sgd"}, "refit_optimizer"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"coverage": 0.0}, "coverage"),
        ({"rejection": "variance"}, "rejection"),
        ({"augment": 3}, "augment"),
        ({"random_state": "seed"}, "random_state"),
        ({"target_layer": "feature"}, "Near ones: 'features'"),
        ({"target_layer": "head"}, "no spatial output"),
        ({"saliency": "input_gradient", "target_layer": "features"}, "Leave one"),
        ({"augment": lambda x: x[:, 1:]}, "augment must return"),
        ({"saliency": lambda net, X, target: X}, "returned maps of shape"),
    ],
    ids=str,
)
def test_bad_parameters_cost_no_training(images, params, message):
    clf = masktune(**({"estimator": untrainable()} | params))
    with pytest.raises(ValueError, match=message):
        clf.fit(*images)
    with pytest.raises(NotFittedError):
        clf.predict(images[0])


class Spare(TinyConvNet):
    """Has a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Conv2d(1, 1, 3)


def test_layer_that_never_runs(images):
    clf = masktune(estimator=untrainable(module=Spare), target_layer="spare")
    with pytest.raises(TargetLayerError, match="never runs"):
        clf.fit(*images)


def test_saliency_that_needs_a_spatial_layer_on_vectors():
    clf = MaskTuneClassifier(untrainable(module=TinyMLP), saliency="xgradcam")
    with pytest.raises(TargetLayerError, match="X holds vectors of 6 features"):
        clf.fit(*tiny_vectors())


class Flat(TinyMLP):
    def forward(self, X):
        return super().forward(X.flatten(1))


def test_saliency_that_needs_a_spatial_layer_on_an_mlp_for_images(images):
    net = untrainable(module=Flat, module__n_features=144)
    with pytest.raises(TargetLayerError, match="no layer of Flat has one"):
        masktune(estimator=net, saliency="gradcam").fit(*images)
    net = tiny_net(Flat, module__n_features=144)
    assert isinstance(masktune(estimator=net).fit(*images).saliency_, InputXGradient)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))

    def forward(self, X):
        return self.layers(X)


def test_batch_of_one_under_batch_norm():
    X, y = tiny_vectors(n=82)
    net = untrainable(module=Normed, batch_size=1)
    with pytest.raises(ValueError, match="batch would hold one sample"):
        MaskTuneClassifier(net).fit(X, y)
    # 65 rows to train on: with our own batches the last one joins the one before
    MaskTuneClassifier(tiny_net(Normed), random_state=0).fit(X[:81], y[:81])


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (TinyConvNet(), "must be a skorch.NeuralNetClassifier"),
        (TinyConvNet, "must be a skorch.NeuralNetClassifier"),
        (NeuralNetBinaryClassifier(TinyConvNet), "with two outputs"),
        (FrozenEstimator(TinyConvNet()), "must be a skorch.NeuralNetClassifier"),
    ],
    ids=["module", "class", "binary", "frozen module"],
)
def test_what_is_no_classifier_net_is_refused(images, estimator, message):
    with pytest.raises(TypeError, match=message):
        masktune(estimator=estimator).fit(*images)


def test_channels_last_images_are_told_how_to_turn():
    X, y = tiny_images(n_channels=3)
    X = X.transpose(0, 2, 3, 1)
    for net in (None, untrainable()):
        with pytest.raises(ValueError, match=r"X.transpose\(0, 3, 1, 2\)"):
            masktune(estimator=net).fit(X, y)


def test_instance_with_module_parameters_is_refused(images):
    net = untrainable(module=TinyConvNet(), module__width=3)
    with pytest.raises(ValueError, match="drop the instance's weights"):
        masktune(estimator=net).fit(*images)


def test_number_of_outputs_must_be_that_of_classes(images):
    X, y = images
    with pytest.raises(ValueError, match=r"\(5,\) outputs .* 2 classes"):
        masktune(estimator=untrainable(module__n_classes=5)).fit(X, y)


def test_logits_for_the_default_criterion_are_refused(images):
    net = untrainable(criterion=nn.NLLLoss)
    with pytest.raises(ValueError, match="criterion=torch.nn.CrossEntropyLoss"):
        masktune(estimator=net).fit(*images)


def test_random_train_split_is_seeded(images):
    net = tiny_net(train_split=ValidSplit(0.2, stratified=True))
    clf = masktune(estimator=net, validation_fraction=0)
    rows = [clone(clf).fit(*images).train_indices_ for _ in range(2)]
    np.testing.assert_array_equal(*rows)


def test_augment_may_write_in_place(images):
    masktune(augment=lambda x: x.add_(0.1)).fit(*images)


def test_own_train_split_is_honoured_or_refused(images):
    X, y = images
    split = ValidSplit(3, stratified=True, random_state=None)
    with pytest.raises(ValueError, match="train_split of its own"):
        masktune(estimator=untrainable(train_split=split)).fit(X, y)
    net = tiny_net(train_split=split, max_epochs=8, batch_size=8)
    clf = masktune(estimator=net, validation_fraction=0).fit(X, y)
    assert len(clf.train_indices_) == 40
    assert "valid_acc" in clf.history_[0]
    assert clf.calibration_scores_ is None


# ---------------------------------------------------------------- what it says


def test_verbose_shows_every_stage_and_a_closing_line(images, capsys):
    masktune(verbose=1).fit(*images)
    captured = capsys.readouterr()
    for stage in ("ERM", "saliency maps", "refit"):
        assert f"{stage}: 100%" in captured.err
    assert captured.out.count("\n") == 1
    for words in ("hold-out accuracy", "before", "after", "% of each sample", "empty"):
        assert words in captured.out


def test_verbose_two_shows_the_table_of_epochs(images, capsys):
    masktune(verbose=2).fit(*images)
    assert "train_loss" in capsys.readouterr().out


def test_masks_that_hide_nothing_are_reported(images):
    with pytest.warns(EmptyMaskWarning, match="48 of 48 .* Lower the threshold"):
        clf = masktune(saliency=nothing).fit(*images)
    assert clf.n_empty_masks_ == 48
    assert clf.masked_fraction_ == 0


# ---------------------------------------------------------------- size


def test_pickle_holds_two_nets_and_no_optimizer(images):
    X, y = images
    net = tiny_net(module__width=64, max_epochs=2)
    clf = masktune(estimator=net).fit(X, y)
    n_bytes = sum(
        t.numel() * t.element_size()
        for fitted in (clf.erm_net_, clf.net_)
        for t in fitted.module_.state_dict().values()
    )
    assert n_bytes > 300_000
    assert len(pickle.dumps(clf)) < 1.3 * n_bytes


@pytest.mark.slow
def test_pickled_resnet18_loads_in_another_process(tmp_path):
    from torchvision.models import resnet18

    X, y = tiny_images(n=20, size=32, n_channels=3)
    net = tiny_net(resnet18, module__num_classes=2, max_epochs=1, batch_size=10)
    clf = MaskTuneClassifier(
        net, threshold_rule="quantile", mask_threshold=0.1, random_state=0
    ).fit(X, y)
    path = tmp_path / "clf.pickle"
    path.write_bytes(pickle.dumps((clf, X)))
    n_bytes = sum(t.nbytes for t in clf.net_.module_.state_dict().values())
    assert path.stat().st_size < 1.3 * 2 * n_bytes
    script = (
        "import pickle, numpy as np, torch; torch.set_num_threads(1)\n"
        f"clf, X = pickle.load(open({str(path)!r}, 'rb'))\n"
        f"np.savez({str(tmp_path / 'out.npz')!r}, proba=clf.predict_proba(X),"
        " accepted=clf.predict_with_reject(X)[1])"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(out["proba"], clf.predict_proba(X))
    np.testing.assert_array_equal(out["accepted"], clf.predict_with_reject(X)[1])
