import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from masktune_sk.concepts import ConceptStratifiedKFold, check_concept

VALUES = np.tile([1.0, 0.0, np.nan], 10)


@pytest.mark.parametrize(
    "concept",
    [
        VALUES,
        VALUES.astype(np.float32)[:, None],
        np.nan_to_num(VALUES, nan=-1).astype(int),
        [None if np.isnan(v) else bool(v) for v in VALUES],
        pd.Series(VALUES),
        pd.Series(VALUES).astype("boolean"),
    ],
    ids=["float", "column", "int", "list", "series", "nullable"],
)
def test_every_way_to_say_unknown(concept):
    assert_array_equal(check_concept(concept, 30), VALUES[:, None])


def test_several_concepts():
    concept = np.c_[VALUES, VALUES[::-1]]
    checked = check_concept(concept, 30)
    assert_array_equal(checked, concept)
    assert not np.shares_memory(checked, concept)


@pytest.mark.parametrize(
    ("concept", "message"),
    [
        (np.ones(29), r"shape \(30,\) or \(30, n_concepts\).*got \(29,\)"),
        (np.ones((30, 0)), r"got \(30, 0\)"),
        (np.ones((30, 1, 1)), r"got \(30, 1, 1\)"),
        (1, "concept must"),
        (np.full(30, 2), r"0 or False .* got \[2.0\]"),
        (np.full(30, np.inf), "concept must hold 0 or False"),
        (["yes", "no"] * 15, "does not convert to numbers.*yes"),
        (np.zeros(30), r"concept has no sample with the artifact \(1\)"),
        (np.ones(30), "has no sample without it.*cross-validation fold all artifact"),
        (np.full(30, -1), "got 0 with, 0 without and 30 unknown"),
        (np.eye(30)[0], "1 samples with the artifact.*at least 5 of both"),
        (np.c_[VALUES, np.ones(30)], r"concept\[:, 1\] has no sample"),
    ],
)
def test_bad_concept(concept, message):
    with pytest.raises(ValueError, match=message):
        check_concept(concept, 30)


def test_folds_keep_every_kind_of_every_class():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    concept = rng.choice([0, 1, -1], size=300, p=[0.6, 0.2, 0.2])
    folds = ConceptStratifiedKFold(n_splits=4, shuffle=True, random_state=0)
    seen = []
    for train, test in folds.split(y, y, concept):
        assert not set(train) & set(test)
        seen.extend(test)
        for c in range(3):
            for kind in (0, 1, -1):
                cell = (y == c) & (concept == kind)
                assert abs(cell[test].sum() - cell.sum() / 4) <= 1
    assert sorted(seen) == list(range(300))


def test_folds_of_a_search():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 2)), np.repeat(["a", "b"], 50)
    concept = (np.arange(100) < 10).astype(int)
    search = GridSearchCV(
        LogisticRegression(), {"C": [1.0]}, cv=ConceptStratifiedKFold()
    )
    search.fit(X, y, groups=concept)
    with config_context(enable_metadata_routing=True):
        search.fit(X, y, concept=concept)
    with pytest.raises(ValueError, match="needs the concept of each sample"):
        search.fit(X, y)


def test_folds_without_enough_artifact_samples():
    y = np.repeat([0, 1], 20)
    folds = ConceptStratifiedKFold(n_splits=5)
    with pytest.raises(ValueError, match="4 samples with the artifact"):
        next(folds.split(y, y, np.arange(40) < 4))
