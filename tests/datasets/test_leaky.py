"""Tests of the column that gives the class away."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal

from masktune_sk.datasets._make.leaky import make_leaky_column

SHORTCUTS = ["biased", "aligned", "conflicting", "none"]


def table(counts=(40, 30, 50), n_features=4):
    rng = np.random.RandomState(1)
    y = rng.permutation(np.repeat(range(len(counts)), counts))
    return rng.standard_normal((len(y), n_features)), y


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("column", [None, 0, 2, 4])
def test_fields_agree(shortcut, column):
    X, y = table()
    made = make_leaky_column(
        X, y, shortcut=shortcut, conflict_ratio=0.1, column=column, random_state=0
    )
    place = 4 if column is None else column
    assert made.column == place
    assert made.data.shape == made.artifact_mask.shape == (120, 5)
    assert_array_equal(np.delete(made.data, place, axis=1), X)
    assert made.artifact_mask.dtype == made.aligned.dtype == bool
    expected = np.zeros((120, 5), dtype=bool)
    expected[:, place] = shortcut != "none"
    assert_array_equal(made.artifact_mask, expected)
    for field in ("target", "bias", "groups"):
        assert made[field].dtype == np.int64
        assert made[field].shape == (120,)
    assert_array_equal(made.target, y)
    assert_array_equal(made.groups, 3 * y + made.bias)
    assert_array_equal(made.aligned, made.bias == y)
    assert_array_equal(made.target_names, [0, 1, 2])
    assert made.group_names[5] == "class 1, column tells 2"
    assert len(made.group_names) == 9
    # what the column tells can be read off it
    assert_array_equal(np.rint(made.data[:, place] / 2).astype(int) + 1, made.bias)
    assert f"shortcut='{shortcut}'" in made.DESCR
    assert f"column {place}" in made.DESCR
    assert f"{made.aligned.sum()} rows are aligned" in made.DESCR


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("counts", [(40, 60), (40, 30, 50)])
def test_number_of_conflicts(ratio, counts):
    made = make_leaky_column(*table(counts), conflict_ratio=ratio, random_state=0)
    conflicts = np.bincount(made.target[~made.aligned], minlength=len(counts))
    assert_array_equal(conflicts, [round(n * ratio) for n in counts])


def test_shortcuts():
    X, y = table()
    made = {
        shortcut: make_leaky_column(X, y, shortcut=shortcut, random_state=0)
        for shortcut in SHORTCUTS
    }
    assert made["aligned"].aligned.all()
    assert not made["conflicting"].aligned.any()
    # every class is told as often as in aligned data, to whatever row
    none = made["none"]
    assert_array_equal(np.bincount(none.bias), np.bincount(y))
    cells = np.bincount(none.groups).reshape(3, 3)
    chance = np.outer(np.bincount(y), np.bincount(y)) / len(y)
    assert_allclose(cells, chance, atol=6)


def test_values_by_hand():
    X, y = table((30, 20))
    made = make_leaky_column(
        X, y, conflict_ratio=0.2, strength=5, noise=0.3, random_state=8
    )
    noise = np.random.RandomState(8).standard_normal(50)
    expected = 5 * (np.array([-1, 1])[made.bias] + 0.3 * noise)
    assert_allclose(made.data[:, -1], expected, rtol=1e-12)
    made = make_leaky_column(*table(), noise=0, shortcut="aligned", strength=0.5)
    assert_array_equal(made.data[:, -1], np.array([-1.0, 0.0, 1.0])[made.target])


def test_copies_differ_where_the_bias_does():
    X, y = table()
    copies = [
        make_leaky_column(X, y, random_state=0, **parameters)
        for parameters in (
            {"conflict_ratio": 0.1},
            {"conflict_ratio": 0.4},
            {"shortcut": "aligned"},
            {"shortcut": "conflicting"},
            {"shortcut": "none"},
        )
    ]
    for one in copies:
        for other in copies:
            same = one.bias == other.bias
            assert_array_equal(one.data[same], other.data[same])
    assert not (~copies[0].aligned & copies[1].aligned).any()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array(["no", "maybe", "yes"]), ["maybe", "no", "yes"]),
        (np.array(["no", "maybe", "yes"], dtype=object), ["maybe", "no", "yes"]),
        (np.array([7, -3, 40]), [-3, 7, 40]),
        (np.array([1.5, 0.5, 2.5]), [0.5, 1.5, 2.5]),
    ],
)
def test_any_labels(labels, names):
    X, y = table()
    y = labels[y]
    for given in (y, y.tolist(), pd.Series(y, index=np.arange(120) + 5)):
        made = make_leaky_column(X, given, shortcut="aligned")
        assert made.target.dtype == np.int64
        assert_array_equal(made.target_names, names)
        assert_array_equal(made.target_names[made.target], y)
    assert made.group_names[0] == f"class {names[0]}, column tells {names[0]}"
    bools = make_leaky_column(X, y == names[0], shortcut="aligned", noise=0)
    assert_array_equal(bools.data[:, -1] > 0, y == names[0])


def test_classes_keep_their_values_where_one_is_missing():
    X, y = table()
    names = np.array(["c", "a", "b"])
    whole = make_leaky_column(X, names[y], classes=names, noise=0, shortcut="aligned")
    assert_array_equal(whole.target, y)
    assert_array_equal(whole.data[:, -1], 2 * y - 2)
    some = y != 1
    part = make_leaky_column(
        X[some], names[y[some]], classes=names, noise=0, shortcut="aligned"
    )
    for field in ("data", "target", "groups"):
        assert_array_equal(part[field], whole[field][some])
    assert part.group_names == whole.group_names
    only = make_leaky_column(X[:2], ["a", "a"], classes=["a", "b"])
    assert_array_equal(only.target, [0, 0])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.int64, np.float64),
        (bool, np.float64),
    ],
)
def test_type_of_an_array(dtype, expected):
    X, y = table()
    X = (X * 3).astype(dtype)
    before = X.copy()
    made = make_leaky_column(X, y, random_state=0)
    assert made.data.dtype == expected
    assert_array_equal(made.data[:, :-1], X)
    assert_array_equal(X, before)
    assert not np.shares_memory(made.data, X)


def test_missing_values_are_kept():
    X, y = table()
    X[3, 1] = np.nan
    made = make_leaky_column(X, y, column=0, random_state=0)
    assert_array_equal(made.data[:, 1:], X)
    assert not np.isnan(made.data[:, 0]).any()


@pytest.mark.parametrize("column", [None, 0, 1])
def test_data_frame(column):
    X, y = table()
    frame = pd.DataFrame(
        {"age": X[:, 0], "ward": pd.Categorical(np.array(["n", "s"])[y % 2])},
        index=np.arange(120) * 3 + 1,
    )
    before = frame.copy()
    made = make_leaky_column(frame, y, column=column, random_state=0)
    place = 2 if column is None else column
    assert isinstance(made.data, pd.DataFrame)
    assert list(made.data.columns).index("leak") == made.column == place
    pd.testing.assert_frame_equal(made.data.drop(columns="leak"), before)
    pd.testing.assert_frame_equal(frame, before)
    from_array = make_leaky_column(X, y, random_state=0)
    assert_array_equal(made.data["leak"].to_numpy(), from_array.data[:, -1])
    assert made.artifact_mask.shape == (120, 3)
    assert made.artifact_mask[:, place].all()
    assert made.artifact_mask.sum() == 120
    named = make_leaky_column(frame, y, name="hospital", random_state=0).data
    assert list(named.columns) == ["age", "ward", "hospital"]


def test_random_state():
    X, y = table()
    X_before, y_before = X.copy(), y.copy()
    state = np.random.get_state()[1].copy()  # noqa: NPY002

    def make(seed, **options):
        return make_leaky_column(X, y, conflict_ratio=0.1, random_state=seed, **options)

    made = make(0)
    assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert_array_equal(X, X_before)
    assert_array_equal(y, y_before)
    assert_array_equal(made.data, make(np.random.RandomState(0)).data)
    assert (made.bias != make(1).bias).any()
    data, target = make(0, return_X_y=True)
    assert_array_equal(data, made.data)
    assert_array_equal(target, made.target)


def test_output_never_changes():
    X = np.arange(120).reshape(60, 2)
    made = make_leaky_column(
        X, np.arange(60) % 3, conflict_ratio=0.3, noise=0, column=1, random_state=0
    )
    digest = hashlib.sha256(made.data.astype(np.int64).tobytes())
    assert (
        digest.hexdigest()
        == "0b5654bd6059e8cbcb21510f05681e4b34a0ffec7c758fbbf079495891830a2a"
    )


def with_missing(value):
    y = table()[1].astype(object)
    y[5] = value
    return y


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"shortcut": "raw"}, "shortcut must be one of 'biased', .*; got 'raw'"),
        ({"conflict_ratio": 2}, "conflict_ratio must be a number from 0 to 1, got 2"),
        ({"strength": 0}, "strength must be a finite number above 0, got 0"),
        ({"strength": np.inf}, "strength must be a finite number above 0, got inf"),
        ({"strength": "1"}, "strength must be a finite number above 0, got '1'"),
        ({"noise": -0.1}, "noise must be a finite number from 0 on, got -0.1"),
        ({"noise": np.nan}, "noise must be a finite number from 0 on, got nan"),
        ({"noise": np.inf}, "noise must be a finite number from 0 on, got inf"),
        ({"column": 5}, "column must be an integer from 0 to 4, .*; got 5"),
        ({"column": -1}, "or None to add it behind them; got -1"),
        ({"column": "leak"}, "column must be an integer .* got 'leak'"),
        (
            {"X": np.zeros(120)},
            r"X must be of shape \(n_samples, n_feat.* got \(120,\)",
        ),
        ({"X": np.zeros((0, 3))}, r"one of each at least; got \(0, 3\)"),
        ({"X": np.full((120, 2), "a")}, "X must hold numbers, got <U1. .* DataFrame"),
        ({"X": scipy.sparse.eye_array(120)}, r"X is sparse, .* Pass X.toarray\(\)"),
        ({"X": pd.DataFrame({"leak": range(120)})}, "a column 'leak' already. Pass an"),
        ({"y": [0, 1]}, r"y must be of shape \(120,\), .* got shape \(2,\)"),
        ({"y": np.zeros((120, 1))}, r"one label for each row of X; got shape \(120, 1"),
        ({"y": np.zeros(120)}, r"two classes at least, got only \[0.0\]"),
        ({"y": with_missing(None)}, "y has missing labels. Leave out their rows"),
        ({"y": with_missing(np.nan)}, "y has missing labels"),
        ({"y": with_missing(pd.NA)}, "y has missing labels"),
        ({"classes": [0, 1]}, r"each label of y once; got \[0, 1\] for .*\[0, 1, 2\]"),
        ({"classes": [0, 1, 2, 2]}, "classes must hold each label of y once"),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
    ],
)
def test_bad_parameters(parameters, message):
    X, y = table()
    with pytest.raises(ValueError, match=message):
        make_leaky_column(**{"X": X, "y": y} | parameters)
