"""Stage 1 of DeNetDM: the mean of its last weights, and several starts."""

import functools

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from masktune_sk import DeNetDMClassifier
from tests.nets import NormedBranch, TinyMLP, tiny_images, tiny_net

pytestmark = pytest.mark.filterwarnings(
    "ignore::masktune_sk.exceptions.StarvedBranchWarning",
    "ignore::masktune_sk.exceptions.RolesUndecidedWarning",
    "ignore::masktune_sk.exceptions.SharedCoresWarning",
)


def biased_vectors(n=600, conflict=0.15, random_state=0):
    """Column 0 gives the class away but for a few; the sign of the others is it."""
    rng = np.random.default_rng(random_state)
    y = rng.integers(0, 2, n)
    bias = np.where(rng.random(n) < conflict, 1 - y, y)
    X = np.c_[2 * (2 * bias - 1), rng.normal(size=(n, 2)) + 0.7 * (2 * y[:, None] - 1)]
    return X.astype(np.float32), y


def denetdm(**params):
    defaults = {
        "stage1_epochs": 6,
        "stage1_lr": 0.01,
        "stage2_epochs": 1,
        "debiased_branch": "shallow",
        "validation_fraction": 0.4,
        "random_state": 0,
    }
    net = tiny_net(functools.partial(TinyMLP, 3), lr=0.003)
    return DeNetDMClassifier(net, **(defaults | params))


def parameters(clf, branch):
    return dict(getattr(clf, f"{branch}_net_").module_.named_parameters())


def assert_same_branches(one, other):
    for branch in ("shallow", "deep"):
        ours, others = parameters(one, branch), parameters(other, branch)
        for name, value in ours.items():
            assert torch.equal(value, others[name]), name


def test_the_mean_is_that_of_the_last_fifth_of_the_epochs():
    X, y = biased_vectors(200)
    after = [denetdm(stage1_epochs=n).fit(X, y) for n in (9, 10)]
    clf = denetdm(stage1_average=True, stage1_epochs=10).fit(X, y)
    for branch in ("shallow", "deep"):
        one, other = (parameters(some, branch) for some in after)
        for name, value in parameters(clf, branch).items():
            torch.testing.assert_close(value, (one[name] + other[name]) / 2, msg=name)
            assert not torch.equal(one[name], other[name])


def test_of_few_epochs_the_mean_is_the_last():
    X, y = biased_vectors(200)
    # No batch normalisation: its statistics are taken anew.
    branches = {
        "shallow_module": functools.partial(nn.Linear, 3, 4),
        "deep_module": functools.partial(make_mlp, 3),
    }
    one = denetdm(**branches).fit(X, y)
    other = denetdm(stage1_average=True, **branches).fit(X, y)
    assert_same_branches(one, other)


def make_mlp(n_layers):
    layers = [nn.Linear(3, 4)]
    for _ in range(n_layers):
        layers += [nn.ReLU(), nn.Linear(4, 4)]
    return nn.Sequential(*layers)


def test_statistics_of_batch_normalisation_are_those_of_the_mean():
    X, y = tiny_images(n=64)
    clf = denetdm(
        stage1_average=True,
        shallow_module=NormedBranch,
        deep_module=functools.partial(NormedBranch, 3),
        stage1_epochs=10,
        stage1_batch_size=16,
        validation_fraction=0,
    )
    clf.set_params(estimator=tiny_net()).fit(X, y)
    convolution, norm = clf.shallow_net_.module_.encoder.trunk.layers[:2]
    assert norm.momentum == 0.1
    with torch.no_grad():
        inputs = convolution(torch.from_numpy(X))
    mean = inputs.mean(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    # Variances are averaged over batches.
    variance = inputs.var(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_var, variance, rtol=0.05, atol=1e-3)


def test_the_mean_teaches_the_target_and_is_found_again(tmp_path, trained):
    X, y = biased_vectors(200)
    params = {"stage1_epochs": 10, "memory": str(tmp_path)}
    last = denetdm(**params).fit(X, y)
    trained.clear()
    clf = denetdm(stage1_average=True, **params).fit(X, y)
    assert trained == ["branches", "target"]
    assert (clf.predict_proba(X) != last.predict_proba(X)).any()
    trained.clear()
    for one in (last, clf):
        again = clone(one).fit(X, y)
        np.testing.assert_array_equal(again.predict_proba(X), one.predict_proba(X))
        assert_same_branches(again, one)
    assert trained == []


# ---------------------------------------------------------------- starts


def alone(clf, X, y):
    """Class-balanced accuracy of a branch alone on the hold-out, the mean of both."""
    held = np.setdiff1d(np.arange(len(X)), clf.train_indices_)
    return np.mean(
        [
            balanced_accuracy_score(
                y[held], clf.branch_predict_proba(X[held], branch).argmax(axis=1)
            )
            for branch in ("shallow", "deep")
        ]
    )


@pytest.mark.parametrize("random_state", range(4))
def test_the_start_whose_branches_do_best_alone_goes_on(random_state):
    X, y = biased_vectors(300)
    params = {"random_state": random_state, "stage1_lr": 0.003}
    clf = denetdm(n_init=3, **params).fit(X, y)
    assert len(clf.start_scores_) == 3
    stages = [row["stage"] for row in clf.history_]
    starts = [f"start {i} of 3" for i in (1, 2, 3)]
    assert stages == [*starts, *6 * ["branches"], "target"]
    # A twentieth of the epochs is less than one here.
    one = denetdm(**(params | {"stage1_epochs": 1})).fit(X, y)
    assert clf.start_scores_[0] == pytest.approx(alone(one, X, y))
    assert one.start_scores_ == []
    single = denetdm(**params).fit(X, y)
    if np.argmax(clf.start_scores_) == 0:
        assert_same_branches(clf, single)
    else:
        first = [row for row in clf.history_ if row["stage"] == "branches"][0]
        begun = [row for row in clf.history_ if row["stage"].startswith("start")]
        best = begun[np.argmax(clf.start_scores_)]
        assert first["train_loss"] == best["train_loss"]
        assert first["train_loss"] != begun[0]["train_loss"]


def test_starts_without_a_holdout_are_compared_on_the_training_rows(tmp_path):
    X, y = biased_vectors(200)
    params = {"n_init": 2, "validation_fraction": 0, "memory": str(tmp_path)}
    clf = denetdm(**params).fit(X, y)
    again = denetdm(**params).fit(X, y)
    assert clf.start_scores_ == again.start_scores_
    assert len(set(clf.start_scores_)) == 2
    assert_same_branches(clf, again)
