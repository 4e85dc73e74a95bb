"""DeNetDMClassifier: its stages, the roles of its branches, what it refuses."""

import copy
import functools
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn

from masktune_sk import DeNetDMClassifier
from masktune_sk._denetdm import _target as target_module
from masktune_sk.datasets import make_colored
from masktune_sk.exceptions import (
    DepthGapWarning,
    NonFiniteError,
    RolesUndecidedWarning,
    StarvedBranchWarning,
)
from masktune_sk.modules import MLP
from masktune_sk.modules._branches import MLPEncoder
from tests.nets import NormedBranch, TinyMLP, tiny_images, tiny_net, tiny_vectors

# A dozen steps leave many a branch at chance.
pytestmark = pytest.mark.filterwarnings(
    "ignore::masktune_sk.exceptions.StarvedBranchWarning"
)

STAGES = ["branches", "early ERM", "target"]


def denetdm(net=None, **params):
    """An estimator whose branches are small; images of one channel."""
    defaults = {
        "shallow_module": NormedBranch,
        "deep_module": functools.partial(NormedBranch, 3),
        "debiased_branch": "shallow",
        "stage1_lr": 0.01,
        "random_state": 0,
    }
    return DeNetDMClassifier(net or tiny_net(), **(defaults | params))


def vector_denetdm(net=None, **params):
    defaults = {"debiased_branch": "shallow", "stage1_lr": 0.01, "random_state": 0}
    return DeNetDMClassifier(net or tiny_net(TinyMLP), **(defaults | params))


def weights(net):
    return {k: v.clone() for k, v in net.module_.state_dict().items()}


def assert_same_weights(one, other, atol=0.0):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=atol, rtol=0, msg=name)


def stage_of(clf, name):
    return [row for row in clf.history_ if row["stage"] == name]


@pytest.fixture(scope="module")
def images():
    return tiny_images()


@pytest.fixture(scope="module")
def fitted(images):
    return denetdm().fit(*images)


@pytest.fixture
def stages(monkeypatch):
    """Record the net of each stage, before and after it trains."""
    seen = {}
    target_net = target_module.target_net
    training_net = target_module.training_net

    def making(*args, **kwargs):
        seen["template"] = training_net(*args, **kwargs)
        return seen["template"]

    def made(template, training, plan, state, precision):
        seen["state"] = state
        return target_net(template, training, plan, state, precision)

    monkeypatch.setattr(target_module, "training_net", making)
    monkeypatch.setattr(target_module, "target_net", made)
    return seen


# ---------------------------------------------------------------- stages


def test_fitted_attributes_describe_the_stages(fitted, images):
    X, _ = images
    n = len(fitted.train_indices_)
    assert fitted.feature_dim_ == 8
    assert fitted.head_layer_ == "head"
    assert type(fitted.net_) is NeuralNetClassifier
    assert type(fitted.net_.module_) is type(tiny_net().initialize().module_)
    assert fitted.conflict_score_.shape == (n,)
    assert fitted.conflict_score_.dtype == np.float32
    assert ((fitted.conflict_score_ >= 0) & (fitted.conflict_score_ <= 1)).all()
    deep = fitted.branch_predict_proba(X, "deep")[fitted.train_indices_]
    y = images[1][fitted.train_indices_]
    np.testing.assert_allclose(
        fitted.conflict_score_, 1 - deep[np.arange(n), y], atol=1e-5
    )
    assert fitted.role_scores_ is None
    assert fitted.debiased_branch_ == "shallow"
    assert set(fitted.separation_) == {
        "disagreement",
        "accuracy",
        "balanced_accuracy",
        "biased_wrong",
        "starved",
    }
    assert fitted.holdout_accuracy_.keys() == {"before", "after"}


def test_history_covers_both_stages(fitted):
    assert [row["stage"] for row in fitted.history_] == 3 * ["branches"] + 3 * [
        "target"
    ]
    assert {"epoch", "lr", "train_loss", "valid_loss", "valid_acc"} <= set(
        fitted.history_[0]
    )


def test_branches_are_the_experts_of_the_sum_that_was_trained(images):
    """Without a bias, the pair is their product of experts."""
    X, y = images
    clf = denetdm(head_bias=False, validation_fraction=0).fit(X, y)
    log_proba = sum(np.log(clf.branch_predict_proba(X, b)) for b in ("shallow", "deep"))
    product = np.exp(log_proba) / np.exp(log_proba).sum(axis=1, keepdims=True)
    both = [clf.shallow_net_.forward(X)[1], clf.deep_net_.forward(X)[1]]
    summed = torch.softmax(clf.shallow_net_.module_.head(sum(both)), dim=1)
    np.testing.assert_allclose(product, summed.detach(), atol=1e-6)
    for net in (clf.shallow_net_, clf.deep_net_):
        assert net.module_.head.bias is None


def test_branches_share_one_head(fitted):
    shallow, deep = weights(fitted.shallow_net_), weights(fitted.deep_net_)
    assert torch.equal(shallow["head.weight"], deep["head.weight"])
    assert not torch.equal(
        shallow["head.weight"], fitted.net_.module_.head.weight.detach()
    )


def test_before_is_the_debiased_branch_and_after_is_the_target(fitted, images):
    X, y = images
    held = np.setdiff1d(np.arange(len(X)), fitted.train_indices_)
    proba = fitted.predict_proba(X)
    np.testing.assert_array_equal(proba, fitted.branch_predict_proba(X, "target"))
    for name, branch in (("before", "shallow"), ("after", "target")):
        right = fitted.branch_predict_proba(X[held], branch).argmax(axis=1) == y[held]
        assert fitted.holdout_accuracy_[name] == right.mean()
    before = fitted.branch_predict_proba(X, "shallow")
    label = proba.argmax(axis=1)
    rows = np.arange(len(X))
    np.testing.assert_allclose(
        fitted.selection_score(X), before[rows, label] * proba[rows, label], rtol=1e-5
    )


@pytest.mark.parametrize("packed", [True, False])
def test_frozen_branches_are_the_same_bit_for_bit_after_stage_2(
    images, stages, monkeypatch, packed
):
    if not packed:
        monkeypatch.setattr(target_module, "can_pack", lambda *args: False)
    X, y = images
    one = denetdm(predict_branch="shallow").fit(X, y)
    other = denetdm().fit(X, y)
    for net, again in (
        (one.shallow_net_, other.shallow_net_),
        (one.deep_net_, other.deep_net_),
    ):
        assert_same_weights(weights(net), weights(again))
    if not packed:
        trained = stages["state"].weights["module_"]
        for role, net in (("biased", one.deep_net_), ("debiased", one.shallow_net_)):
            prefix = f"guide.{role}."
            kept = {
                k.removeprefix(prefix): v
                for k, v in trained.items()
                if k.startswith(prefix)
            }
            assert any("running_mean" in name for name in kept)
            assert_same_weights(kept, weights(net))


def test_normalisation_of_the_biased_branch_moves_as_in_the_official_code(
    images, stages
):
    clf = denetdm(freeze_norm=False).fit(*images)
    trained = stages["state"].weights["module_"]
    moved = {
        name
        for role, net in (("biased", clf.deep_net_), ("debiased", clf.shallow_net_))
        for name, value in weights(net).items()
        if not torch.equal(trained[f"guide.{role}.{name}"], value)
        for name in [f"{role}.{name}"]
    }
    assert moved
    assert all(name.startswith("biased.") for name in moved)
    assert all("running" in name or "num_batches" in name for name in moved)


def test_target_starts_with_a_copy_of_the_shared_head(images, stages):
    clf = denetdm(stage2_lr=1e-12).fit(*images)
    head = clf.shallow_net_.module_.head
    torch.testing.assert_close(
        clf.net_.module_.head.weight, head.weight, atol=1e-9, rtol=0
    )
    assert clf.net_.module_.head.weight.data_ptr() != head.weight.data_ptr()


@pytest.mark.parametrize("make", [denetdm, vector_denetdm])
def test_features_computed_once_train_the_same_target(make, monkeypatch):
    X, y = tiny_images() if make is denetdm else tiny_vectors()
    once = make().fit(X, y)
    monkeypatch.setattr(target_module, "can_pack", lambda *args: False)
    anew = make().fit(X, y)
    assert_same_weights(weights(once.net_), weights(anew.net_), atol=1e-5)
    for a, b in zip(stage_of(once, "target"), stage_of(anew, "target"), strict=True):
        for key in ("train_loss", "valid_loss", "valid_acc"):
            assert a[key] == pytest.approx(b[key], abs=1e-5)


def test_deep_branch_has_no_part_in_predicting(images):
    X, y = images
    clf = denetdm().fit(X, y)
    expected = clf.predict_proba(X), clf.selection_score(X)
    with torch.no_grad():
        for parameter in clf.deep_net_.module_.parameters():
            parameter.fill_(7)
    np.testing.assert_array_equal(clf.predict_proba(X), expected[0])
    np.testing.assert_array_equal(clf.selection_score(X), expected[1])


def test_distillation_alone_comes_to_the_teacher(images):
    X, y = images
    clf = denetdm(poe_weight=0, stage2_epochs=60).fit(X, y)
    teacher = clf.branch_predict_proba(X, "shallow")
    far = denetdm(poe_weight=0, stage2_epochs=1).fit(X, y).predict_proba(X)
    near = clf.predict_proba(X)
    assert abs(near - teacher).mean() < 0.5 * abs(far - teacher).mean()


@pytest.mark.parametrize(
    "params",
    [
        {"poe_weight": 0.5},
        {"distill_weight": 0.5},
        {"temperature": 4.0},
        {"stage2_epochs": 2},
        {"stage2_lr": 0.02},
        {"stage2_weight_decay": 0.1},
        {"debiased_branch": "deep"},
        {"estimator__criterion__label_smoothing": 0.2},
    ],
)
def test_parameter_changes_the_target(fitted, images, params):
    clf = denetdm().set_params(**params).fit(*images)
    assert not torch.equal(
        clf.net_.module_.head.weight, fitted.net_.module_.head.weight
    )
    if "criterion" not in next(iter(params)):
        assert_same_weights(weights(clf.deep_net_), weights(fitted.deep_net_))


@pytest.mark.parametrize(
    "params",
    [
        {"stage1_epochs": 2},
        {"stage1_lr": 0.02},
        {"stage1_weight_decay": 0.1},
        {"stage1_batch_size": 8},
        {"head_bias": False},
        {"feature_dim": 5},
    ],
)
def test_parameter_changes_the_branches(fitted, images, params):
    clf = denetdm(**params).fit(*images)
    one, other = clf.branch_predict_proba(images[0], "deep"), None
    other = fitted.branch_predict_proba(images[0], "deep")
    assert not np.array_equal(one, other)


def test_epochs_and_rates_are_those_asked_for(images):
    clf = denetdm(stage1_epochs=2, stage1_lr=0.003, stage2_epochs=1, stage2_lr=0.004)
    clf.fit(*images)
    assert [row["lr"] for row in stage_of(clf, "branches")] == [0.003] * 2
    assert [row["lr"] for row in stage_of(clf, "target")] == [0.004]
    clf = denetdm(stage2_epochs=1).fit(*images)
    assert len(stage_of(clf, "branches")) == 3
    assert clf.estimator.max_epochs == 3


def test_settings_of_the_net_are_those_of_stage_2(images):
    net = tiny_net(optimizer=torch.optim.SGD, lr=0.05, max_epochs=9)
    net.set_params(
        callbacks=[
            EarlyStopping(patience=1, monitor="valid_acc", lower_is_better=False)
        ]
    )
    clf = denetdm(net, stage1_epochs=4).fit(*images)
    assert len(stage_of(clf, "branches")) == 4
    assert len(stage_of(clf, "target")) < 9
    assert stage_of(clf, "target")[0]["lr"] == 0.05


@pytest.mark.parametrize("feature_dim", [None, 5, 30])
def test_target_of_another_width_is_the_users_own_module(images, feature_dim, stages):
    X, y = images
    clf = denetdm(tiny_net(module__width=6), feature_dim=feature_dim).fit(X, y)
    assert clf.feature_dim_ == (feature_dim or 8)
    module = clf.net_.module_
    assert module.head.weight.shape == (2, 6)
    assert not any("projection" in name for name, _ in module.named_modules())
    # Loaded into a net of the user's, the weights predict alone.
    net = tiny_net(module__width=6).initialize()
    net.module_.load_state_dict(module.state_dict())
    np.testing.assert_allclose(net.predict_proba(X), clf.predict_proba(X), atol=1e-6)


def test_same_seed_same_weights_other_seed_other_weights(fitted, images):
    again = denetdm().fit(*images)
    for name in ("shallow_net_", "deep_net_", "net_"):
        assert_same_weights(
            weights(getattr(again, name)), weights(getattr(fitted, name))
        )
    other = denetdm(random_state=1).fit(*images)
    assert not torch.equal(
        other.net_.module_.head.weight, fitted.net_.module_.head.weight
    )


def test_holdout_is_never_trained_on(images):
    X, y = images
    clf = denetdm().fit(X, y)
    held = np.setdiff1d(np.arange(len(X)), clf.train_indices_)
    changed = X.copy()
    changed[held] = 0
    again = denetdm().fit(changed, y)
    assert_same_weights(weights(again.net_), weights(clf.net_))


def test_branch_that_predicts_leaves_stage_2_out(images):
    X, y = images
    clf = denetdm(predict_branch="deep").fit(X, y)
    assert clf.net_ is clf.deep_net_
    assert not stage_of(clf, "target")
    np.testing.assert_array_equal(
        clf.predict_proba(X), clf.branch_predict_proba(X, "deep")
    )
    with pytest.raises(ValueError, match=r"one of 'shallow', 'deep'; got 'target'"):
        clf.branch_predict_proba(X, "target")


def test_instances_and_classifiers_serve_as_branches():
    X, y = tiny_vectors()
    shallow = TinyMLP(width=7)
    before = copy.deepcopy(shallow.state_dict())
    clf = vector_denetdm(
        shallow_module=shallow,
        deep_module=functools.partial(MLP, 6, 2, hidden=(9, 9, 9, 9)),
    ).fit(X, y)
    assert clf.feature_dim_ == 7
    assert clf.shallow_net_.module_.encoder.projection.__class__ is nn.Identity
    assert clf.deep_net_.module_.encoder.projection.weight.shape == (7, 9)
    assert all(torch.equal(v, before[k]) for k, v in shallow.state_dict().items())


def test_augmentation_reaches_both_stages_and_nothing_is_computed_once(images, stages):
    X, y = images
    clf = denetdm(augment=negated).fit(X, y)
    assert "guide.biased.head.weight" in stages["state"].weights["module_"]
    plain = denetdm().fit(X, y)
    assert "guide.biased.head.weight" not in stages["state"].weights["module_"]
    for name in ("deep_net_", "net_"):
        assert not torch.equal(
            next(getattr(clf, name).module_.parameters()),
            next(getattr(plain, name).module_.parameters()),
        )


def negated(x):
    return -x


def test_own_split_of_the_net_validates_every_stage(images):
    net = tiny_net(train_split=ValidSplit(0.25, stratified=True))
    clf = denetdm(net, validation_fraction=0).fit(*images)
    assert len(clf.train_indices_) == 45
    assert all("valid_acc" in row for row in clf.history_)


def test_bf16_trains_and_predicts(images):
    clf = denetdm(precision="bf16").fit(*images)
    assert clf.precision_ == "bf16"
    assert np.isfinite(clf.predict_proba(images[0])).all()


@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.RolesUndecidedWarning")
def test_default_nets_follow_the_shape():
    X, y = tiny_images(n=24, n_channels=3)
    clf = DeNetDMClassifier(tiny_net(module__n_channels=3, max_epochs=1))
    clf.set_params(random_state=0).fit((X * 255).astype(np.uint8), y)
    assert clf.feature_dim_ == 64
    X, y = tiny_vectors()
    clf = DeNetDMClassifier(stage1_epochs=1, stage2_epochs=1, random_state=0)
    assert clf.fit(X, y).feature_dim_ == 100
    assert type(clf.net_.module_) is MLP


# ---------------------------------------------------------------- memory, persistence


def test_stages_are_found_in_memory(images, tmp_path, trained):
    clf = denetdm(memory=str(tmp_path)).fit(*images)
    assert trained == ["branches", "target"]
    again = clone(clf).fit(*images)
    assert trained == ["branches", "target"]
    assert_same_weights(weights(again.net_), weights(clf.net_))
    # Another stage 2 after the same stage 1.
    for params in (
        {"temperature": 3.0},
        {"debiased_branch": "deep"},
        {"freeze_norm": False},
    ):
        trained.clear()
        clone(clf).set_params(**params).fit(*images)
        assert trained == ["target"]
    trained.clear()
    clone(clf).set_params(stage1_lr=0.02).fit(*images)
    assert trained == ["branches", "target"]


def test_fitted_estimator_pickles_with_its_branches(fitted, images):
    X, _ = images
    loaded = pickle.loads(pickle.dumps(fitted))
    for branch in ("shallow", "deep", "target"):
        np.testing.assert_array_equal(
            loaded.branch_predict_proba(X, branch),
            fitted.branch_predict_proba(X, branch),
        )


# ---------------------------------------------------------------- roles


def biased_vectors(n=600, conflict=0.1, random_state=0):
    """Column 0 gives the class away but for a few; the parity of two others is it."""
    rng = np.random.default_rng(random_state)
    y = rng.integers(0, 2, n)
    bias = np.where(rng.random(n) < conflict, 1 - y, y)
    signs = rng.choice([-1, 1], (n, 2))
    signs[:, 1] = signs[:, 0] * (2 * y - 1)
    X = np.c_[3 * (2 * bias - 1), signs] + 0.1 * rng.normal(size=(n, 3))
    return X.astype(np.float32), y, bias


@pytest.mark.parametrize("better", ["shallow", "deep"])
@pytest.mark.parametrize("validation_fraction", [0, 0.4])
def test_auto_takes_the_branch_that_is_right_where_early_erm_is_wrong(
    better, validation_fraction, monkeypatch
):
    X, y, bias = biased_vectors()
    by_bias = functools.partial(Column, 0)
    by_core = functools.partial(Product, 1, 2)
    modules = {"shallow": by_bias, "deep": by_bias, better: by_core}
    with pytest.warns(DepthGapWarning):
        clf = vector_denetdm(
            tiny_net(functools.partial(TinyMLP, 3), lr=0.003),
            shallow_module=modules["shallow"],
            deep_module=modules["deep"],
            debiased_branch="auto",
            validation_fraction=validation_fraction,
            stage1_epochs=5,
        ).fit(X, y)
    assert clf.debiased_branch_ == better
    scores = clf.role_scores_
    assert scores[better] > 0.9
    assert min(scores["shallow"], scores["deep"]) < 0.5
    n_rows = 240 if validation_fraction else len(X)
    assert 20 <= scores["n_hard"] < 0.3 * n_rows
    assert [row["stage"] for row in clf.history_] == np.repeat(
        STAGES, [5, 1, 3]
    ).tolist()
    conflicting = (y != bias)[clf.train_indices_]
    assert (
        clf.conflict_score_[conflicting].min() > clf.conflict_score_[~conflicting].max()
    )
    assert clf.separation_["biased_wrong"] == pytest.approx(conflicting.mean())


class Column(nn.Module):
    def __init__(self, column):
        super().__init__()
        self.column = column

    def forward(self, X):
        return torch.relu(X[:, [self.column] * 3] * torch.tensor([1.0, -1.0, 0.0]))


class Product(nn.Module):
    def __init__(self, *columns):
        super().__init__()
        self.columns = list(columns)

    def forward(self, X):
        product = X[:, self.columns].prod(dim=1, keepdim=True)
        return torch.relu(torch.cat([product, -product, 0 * product], dim=1))


def test_undecided_roles_are_told_and_the_paper_is_followed():
    X, y = tiny_vectors()
    with pytest.warns(
        RolesUndecidedWarning, match="X holds vectors.*debiased_branch"
    ) as told:
        clf = vector_denetdm(debiased_branch="auto").fit(X, y)
    assert {w.filename for w in told} == {__file__}
    assert clf.debiased_branch_ == "shallow"
    assert set(clf.role_scores_) == {"shallow", "deep", "n_hard"}


def test_given_roles_train_as_decided_ones():
    X, y = tiny_vectors()
    with pytest.warns(RolesUndecidedWarning):
        decided = vector_denetdm(debiased_branch="auto").fit(X, y)
    given = vector_denetdm(debiased_branch="shallow").fit(X, y)
    assert_same_weights(weights(decided.net_), weights(given.net_))


class Nothing(nn.Module):
    def forward(self, X):
        return 0 * X


def test_a_branch_at_chance_is_told():
    X, y = tiny_vectors()
    with pytest.warns(
        StarvedBranchWarning, match="The deep branch predicts no better"
    ) as told:
        clf = vector_denetdm(
            deep_module=nn.Sequential(*[nn.Linear(6, 6)] * 5, Nothing())
        ).fit(X, y)
    assert clf.separation_["starved"] == "deep"
    assert told[0].filename == __file__


def test_branches_of_like_depth_are_told():
    X, y = tiny_vectors()
    clf = vector_denetdm(
        deep_module=functools.partial(MLPEncoder, 6, hidden=(100,) * 3)
    )
    with pytest.warns(
        DepthGapWarning, match="has 4 layers .* the shallow one 3"
    ) as told:
        clf.fit(X, y)
    assert told[0].filename == __file__


def test_colour_goes_to_the_deep_branch_and_shape_to_the_shallow_one():
    X, y = make_colored(
        conflict_ratio=0.02, random_state=0, return_X_y=True, subset="train"
    )
    test = make_colored(conflict_ratio=0.9, random_state=0, subset="test")
    X, X_test = (Z[:, :, ::2, ::2] / np.float32(255) for Z in (X, test.data))
    conflicting = test.bias != test.target
    n_features = X[0].size

    def encoder(n_layers):
        return functools.partial(
            MLPEncoder, n_features, (100,) * n_layers, normalize=False
        )

    net = tiny_net(
        nn.Sequential(encoder(4)(), nn.Linear(100, 10)), lr=0.001, max_epochs=4
    )
    clf = DeNetDMClassifier(
        net,
        shallow_module=encoder(2),
        deep_module=encoder(4),
        validation_fraction=0,
        random_state=1,
    ).fit(X, y)

    def accuracy(proba):
        return (proba.argmax(axis=1) == test.target)[conflicting].mean()

    erm = accuracy(clone(net).fit(X, y.astype(np.int64)).predict_proba(X_test))
    got = {
        branch: accuracy(clf.branch_predict_proba(X_test, branch))
        for branch in ("shallow", "deep", "target")
    }
    assert clf.debiased_branch_ == "shallow"
    assert got["deep"] < 0.1
    assert got["shallow"] > erm + 0.2
    assert got["target"] > erm + 0.1


# ---------------------------------------------------------------- refused


class NeverTrain(Callback):
    def on_batch_begin(self, net, **kwargs):
        raise AssertionError("trained")


class SoftmaxMLP(TinyMLP):
    def forward(self, X):
        return torch.softmax(super().forward(X), dim=1)


class NoBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.last = nn.Linear(6, 4), nn.Linear(4, 2, bias=False)

    def forward(self, X):
        return self.last(torch.relu(self.hidden(X)))


class Maps(nn.Module):
    def forward(self, X):
        return X[:, None]


class Softened(nn.Module):
    def forward(self, X):
        return torch.softmax(X[:, :2], dim=1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"poe_weight": 0, "distill_weight": 0}, "both 0.*Set one of them"),
        ({"poe_weight": -1}, "'poe_weight' parameter"),
        ({"temperature": 0}, "'temperature' parameter"),
        ({"stage1_epochs": 0}, "'stage1_epochs' parameter"),
        ({"debiased_branch": "wide"}, "'debiased_branch' parameter"),
        ({"shallow_module": "resnet20"}, "'shallow_module' parameter"),
        ({"deep_module": dict}, "deep_module must be a torch.nn.Module.*got a dict"),
        ({"shallow_module": Maps}, r"one vector of features a sample, \(8, width\)"),
        ({"shallow_module": Softened}, "as many outputs as there are classes, 2"),
        (
            {"deep_module": functools.partial(TinyMLP, 7)},
            r"deep_module can't take samples of shape \(6,\)",
        ),
    ],
)
def test_bad_parameters_cost_no_training(params, message):
    X, y = tiny_vectors()
    clf = vector_denetdm(tiny_net(TinyMLP, callbacks=[NeverTrain()]), **params)
    with pytest.raises(ValueError, match=message):
        clf.fit(X, y)
    with pytest.raises(NotFittedError):
        clf.predict(X)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            tiny_net(SoftmaxMLP, criterion=nn.NLLLoss),
            "SoftmaxMLP, can't be cut into trunk and head: something comes after.*"
            "CrossEntropyLoss",
        ),
        (tiny_net(nn.Linear, module__in_features=6, module__out_features=2), "single"),
        (tiny_net(NoBias), "'last', has no bias.*Set head_bias=False"),
        (tiny_net(TinyMLP, module__n_classes=3), "3.* outputs a sample"),
        (tiny_net(TinyMLP, module__n_features=9), "can't take samples"),
    ],
)
def test_targets_that_cannot_be_used_are_refused(net, message):
    X, y = tiny_vectors()
    with pytest.raises(ValueError, match=message):
        vector_denetdm(net.set_params(callbacks=[NeverTrain()])).fit(X, y)


def test_a_last_layer_without_bias_goes_with_a_head_without():
    X, y = tiny_vectors()
    clf = vector_denetdm(tiny_net(NoBias), head_bias=False).fit(X, y)
    assert clf.net_.module_.last.bias is None


def test_frozen_estimators_are_refused(images):
    X, y = images
    net = FrozenEstimator(tiny_net().fit(X, y))
    with pytest.raises(
        ValueError, match="can't start from a FrozenEstimator.*net itself"
    ):
        denetdm(net).fit(X, y)


def test_several_processes_are_refused():
    data = SimpleNamespace(processes=SimpleNamespace(size=2))
    with pytest.raises(ValueError, match="2 processes train together.*trains in one"):
        denetdm()._check(data)


def test_branch_must_be_known(fitted, images):
    with pytest.raises(ValueError, match="'shallow', 'deep', 'target'; got 'wide'"):
        fitted.branch_predict_proba(images[0], "wide")
    with pytest.raises(NotFittedError):
        denetdm().branch_predict_proba(images[0], "deep")


@pytest.mark.parametrize("stage", STAGES[::2])
def test_a_loss_that_is_not_finite_names_its_stage(stage):
    X, y = tiny_vectors()
    rate = "stage1_lr" if stage == "branches" else "stage2_lr"
    clf = vector_denetdm(tiny_net(TinyMLP, max_epochs=20), **{rate: 1e30})
    with pytest.raises(NonFiniteError, match=f"of the {stage} stage"):
        clf.fit(X, y)


# ---------------------------------------------------------------- looking


def test_layer_report_covers_every_network(fitted, images):
    X, y = images
    report = fitted.layer_report(X, y, random_state=0)
    rows = report.to_dict()
    assert rows["branch"] == ["shallow"] + 3 * ["deep"] + 2 * ["target"]
    only = clone(fitted).set_params(predict_branch="shallow").fit(X, y)
    assert set(only.layer_report(X, y).to_dict()["branch"]) == {"shallow", "deep"}


def test_layer_report_reads_no_more_samples_than_it_draws(fitted, images):
    X, y = images

    class Counting(torch.utils.data.TensorDataset):
        n_read = 0

        def __getitem__(self, index):
            self.n_read += 1
            return super().__getitem__(index)

    samples = Counting(torch.from_numpy(X), torch.from_numpy(y))
    rows = [
        fitted.layer_report(data, y, max_samples=12, random_state=0).to_dict()
        for data in (samples, X)
    ]
    assert rows[0] == rows[1]
    assert samples.n_read < len(X)


def test_verbose_shows_every_stage_and_a_closing_line(images, capsys):
    denetdm(verbose=1).fit(*images)
    captured = capsys.readouterr()
    for stage in ("branches", "target"):
        assert f"{stage}:" in captured.err
    assert "debiased branch: shallow (given)." in captured.out
    X, y, _ = biased_vectors(400)
    with pytest.warns(DepthGapWarning):
        vector_denetdm(
            tiny_net(functools.partial(TinyMLP, 3)),
            shallow_module=functools.partial(Column, 0),
            deep_module=functools.partial(Product, 1, 2),
            debiased_branch="auto",
            verbose=1,
        ).fit(X, y)
    captured = capsys.readouterr()
    assert "early ERM:" in captured.err
    assert "hard samples shallow" in captured.out
