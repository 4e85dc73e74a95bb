import warnings

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from masktune_sk._denetdm._roles import decide_roles, role_scores, separation
from masktune_sk.exceptions import RolesUndecidedWarning, StarvedBranchWarning


def one_hot(predicted, n_classes=2):
    return np.eye(n_classes)[np.asarray(predicted)]


def test_scores_are_balanced_over_the_classes_among_the_hard_samples():
    labels = np.array([0, 0, 0, 0, 1, 2, 2])
    hard = np.array([True, True, True, True, True, False, False])
    shallow = one_hot([0, 0, 0, 1, 0, 2, 2], 3)  # recalls 3/4 and 0
    deep = one_hot([1, 1, 1, 0, 1, 0, 0], 3)  # recalls 1/4 and 1
    scores = role_scores(shallow, deep, labels, hard)
    assert scores == {"shallow": 0.375, "deep": 0.625, "n_hard": 5}


def test_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    shallow, deep = rng.random((2, 300, 4))
    hard = rng.random(300) < 0.5
    scores = role_scores(shallow, deep, labels, hard)
    for name, proba in {"shallow": shallow, "deep": deep}.items():
        expected = balanced_accuracy_score(labels[hard], proba.argmax(1)[hard])
        assert scores[name] == pytest.approx(expected)


def test_no_hard_sample_leaves_the_roles_undecided():
    proba = one_hot([0, 1])
    scores = role_scores(proba, proba, np.array([0, 1]), np.zeros(2, dtype=bool))
    assert np.isnan([scores["shallow"], scores["deep"]]).all()
    assert scores["n_hard"] == 0
    assert decide_roles(scores) == ("shallow", False)


@pytest.mark.parametrize(
    ("n_hard", "shallow", "deep", "verdict"),
    [
        pytest.param(511, 0.637, 0.264, ("shallow", True), id="coloured digits"),
        pytest.param(92, 0.0, 0.92, ("deep", True), id="teacher, scale 5"),
        pytest.param(50, 0.385, 0.891, ("deep", True), id="teacher, scale 1"),
        pytest.param(15, 0.308, 1.0, ("deep", False), id="XOR, few samples"),
        pytest.param(118, 0.5, 0.593, ("deep", False), id="linear, within margin"),
        pytest.param(100, 0.5, 0.5, ("shallow", False), id="tie"),
    ],
)
def test_verdicts(n_hard, shallow, deep, verdict):
    scores = {"shallow": shallow, "deep": deep, "n_hard": n_hard}
    assert decide_roles(scores) == verdict


def test_margin_and_least_number_are_inclusive():
    scores = {"shallow": 0.25, "deep": 0.5, "n_hard": 15}
    assert decide_roles(scores, margin=0.25, min_hard=15) == ("deep", True)
    assert decide_roles(scores, margin=0.26, min_hard=15) == ("deep", False)
    assert decide_roles(scores, margin=0.25, min_hard=16) == ("deep", False)


def test_separation_of_a_planted_shortcut():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1000)
    bias = np.where(np.arange(1000) < 50, 1 - labels, labels)
    result = separation(one_hot(labels), one_hot(bias), labels, "shallow")
    assert result["disagreement"] == 0.05
    assert result["accuracy"] == {"shallow": 1.0, "deep": 0.95}
    assert result["biased_wrong"] == pytest.approx(0.05)
    assert result["starved"] is None
    swapped = separation(one_hot(bias), one_hot(labels), labels, "deep")
    assert swapped["biased_wrong"] == pytest.approx(0.05)
    assert separation(one_hot(labels), one_hot(bias), labels, "deep")[
        "biased_wrong"
    ] == pytest.approx(0)


def test_a_constant_branch_is_starved_however_frequent_its_class():
    labels = (np.arange(1000) < 50).astype(int)
    constant = one_hot(np.zeros(1000, dtype=int))
    result = separation(one_hot(labels), constant, labels, "shallow")
    assert result["accuracy"]["deep"] == 0.95
    assert result["balanced_accuracy"]["deep"] == 0.5
    assert result["starved"] == "deep"


def test_a_branch_below_the_majority_share_may_have_learned():
    # 90 % of the rare class and 80 % of the other, which alone is 95 % of the rows.
    labels = (np.arange(1000) < 50).astype(int)
    predicted = labels.copy()
    predicted[:5] = 0
    predicted[50:240] = 1
    result = separation(one_hot(labels), one_hot(predicted), labels, "shallow")
    assert result["accuracy"]["deep"] < 0.95
    assert result["starved"] is None


def test_a_trace_of_the_labels_in_many_rows_is_no_learning():
    # Right in 12 % of 50,000 rows of 10 classes: 15 standard errors above chance.
    rng = np.random.default_rng(0)
    labels = np.arange(50_000) % 10
    predicted = np.where(
        rng.random(50_000) < 0.12 / 9, labels, rng.integers(0, 10, 50_000)
    )
    result = separation(
        one_hot(predicted, 10), one_hot(labels, 10), labels, debiased="deep"
    )
    assert result["starved"] == "shallow"


def test_random_predictions_of_few_rows_are_chance():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    perfect = one_hot(labels)
    starved = [
        separation(perfect, one_hot(rng.integers(0, 2, 60)), labels, "shallow")[
            "starved"
        ]
        for _ in range(200)
    ]
    assert starved.count("deep") >= 198


def test_the_standard_error_is_that_of_shuffled_predictions():
    labels = np.arange(40) % 2
    error = np.sqrt((20 * 0.5 / 20 + 20 * 0.5 / 20) / 39)
    rng = np.random.default_rng(0)
    recalls = [(rng.permutation(labels) == labels).sum() / 20 for _ in range(4000)]
    assert np.mean(recalls) == pytest.approx(1, rel=0.02)
    assert np.std(recalls) == pytest.approx(error, rel=0.05)
    # Sums of the two recalls of 1.4 and 1.5, where three errors end at 1.48.
    for n_wrong, expected in ((12, "deep"), (10, None)):
        flipped = np.where(np.arange(40) < n_wrong, 1 - labels, labels)
        result = separation(one_hot(labels), one_hot(flipped), labels, "shallow")
        assert result["starved"] == expected


def test_of_two_starved_branches_the_lower_one_is_named():
    labels = np.arange(1000) % 2
    constant = one_hot(np.zeros(1000, dtype=int))
    lower = one_hot(np.where(np.arange(1000) < 520, 1 - labels, labels))
    assert separation(constant, lower, labels, "shallow")["starved"] == "deep"
    assert separation(lower, constant, labels, "shallow")["starved"] == "shallow"


def test_one_class_has_no_chance():
    proba = one_hot([0, 0, 0])
    assert separation(proba, proba, np.zeros(3, dtype=int), "deep")["starved"] is None


def test_odd_predictions_of_classes_that_do_not_occur_are_counted_as_wrong():
    labels = np.array([0, 0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = separation(
            one_hot([2, 2, 2, 2], 3), one_hot(labels, 3), labels, "deep"
        )
    assert result["balanced_accuracy"] == {"shallow": 0.0, "deep": 1.0}
    assert result["starved"] == "shallow"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proba_deep": np.ones((4, 3))}, r"of one shape .* \(4, 2\) of the shallow"),
        ({"labels": np.array([0, 1, 0])}, r"a label a row; got .* labels \(3,\)"),
        ({"labels": np.array([0, 1, 2, 0])}, "integers from 0 to 1; got .* Encode"),
        ({"labels": np.array(["a", "b", "a", "b"])}, "integers from 0 to 1; got .'a'"),
        ({"labels": np.array([0, 1, -1, 0])}, "integers from 0 to 1"),
        ({"hard": np.array([0, 1])}, "hard must be a boolean array .* got dtype int64"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {
        "proba_shallow": one_hot([0, 1, 0, 1]),
        "proba_deep": one_hot([0, 1, 1, 1]),
        "labels": np.array([0, 1, 0, 1]),
        "hard": np.ones(4, dtype=bool),
    }
    with pytest.raises(ValueError, match=message):
        role_scores(**given | change)


def test_unknown_branches_and_no_samples_are_refused():
    proba = one_hot([0, 1])
    with pytest.raises(ValueError, match="one of .'shallow', 'deep'.; got 'target'"):
        separation(proba, proba, np.array([0, 1]), "target")
    with pytest.raises(ValueError, match="compared on no samples"):
        separation(proba[:0], proba[:0], np.array([], dtype=int), "deep")


@pytest.mark.parametrize("category", [RolesUndecidedWarning, StarvedBranchWarning])
def test_the_warnings_are_user_warnings(category):
    assert issubclass(category, UserWarning)
