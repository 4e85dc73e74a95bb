"""The diagnosis of a data set: does it have a shortcut."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    validate_params,
)

from .alone import predict_alone
from .nets import judge_nets
from .probes import Rest, make_probes
from .result import ShortcutDiagnosis
from .samples import read_samples
from .verdict import judge_probes

__all__ = ["diagnose_shortcut"]


@validate_params(
    {
        "X": "no_validation",
        "y": "no_validation",
        "estimator": [HasMethods(["fit", "mask", "saliency_maps"]), None],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "n_permutations": [Interval(Integral, 1, None, closed="left")],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "max_samples": [Interval(Integral, 1, None, closed="left")],
        "max_side": [Interval(Integral, 8, None, closed="left")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def diagnose_shortcut(
    X,
    y=None,
    estimator=None,
    *,
    alpha=0.05,
    n_permutations=99,
    cv=5,
    max_samples=2000,
    max_side=32,
    n_jobs=None,
    random_state=None,
):
    """Look for a shortcut in a data set.

    Trivial probes are asked what they predict of y by themselves: one small patch of
    the image, its border, its brightness, contrast, colour or fine detail as a whole;
    of vectors one column. That a probe predicts y is no sign of a shortcut yet: so do
    the parts of an object. A shortcut is *foreign* to the rest of the sample: where it
    lies, nothing else in the sample tells so. See Notes for what is asked.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features) or \
            (n_samples, n_channels, height, width), Dataset or DatasetView
        Vectors or images, as for `MaskTuneClassifier.fit`.
    y : array-like of shape (n_samples,), default=None
        Labels, of two classes or more. None: those of the Dataset.
    estimator : MaskTuneClassifier, default=None
        Adds two rows: how much the accuracy on unseen samples falls when the net has
        trained on without what it looked at, and whether it looks at the same place in
        all samples. If it isn't fitted, a clone is fitted on all of X and y. The rows
        inform and do not count for the verdict: a core feature that is masked costs
        accuracy too, and objects in the middle are looked at in the middle.
    alpha : float, default=0.05
        Level of the test that a probe predicts y at all.
    n_permutations : int, default=99
        Shuffles of y for that test. More make its p-values finer, and take longer.
    cv : int, default=5
        Folds. Each class needs as many samples.
    max_samples : int, default=2000
        Larger sets are judged by as many samples, drawn equally of the classes as far
        as there are any. Time is proportional to it.
    max_side : int, default=32
        Larger images are averaged down to this side for the patches and the border, so
        that a patch of less than a sixteenth of the side may be missed. Brightness,
        contrast, colour and detail are read in full resolution.
    n_jobs : int, default=None
        Threads for the probes, as in joblib.
    random_state : int, RandomState or None, default=None
        Draws samples, folds and shuffles.

    Returns
    -------
    diagnosis : ShortcutDiagnosis
        `has_shortcut`, `evidence`, `recommendation`; printed, a table.

    Raises
    ------
    TypeError, ValueError
        If X or y is not what it should be, a class has fewer than `cv` samples, or a
        parameter is out of its range.

    See Also
    --------
    masktune_sk.MaskTuneClassifier : Hides a shortcut that has a place of its own.

    Notes
    -----
    A probe is a shortcut if all of this holds:

    1. It predicts y: with y shuffled the best of all probes does as well in a share
       `alpha` of the shuffles at most (Westfall and Young's maximum, so that the number
       of probes is paid for). A sample gets the class of the nearest class mean,
       whitened, in cross-validation; counted is the balanced accuracy, so that a large
       class is no merit.
    2. It goes three quarters of the way from chance to perfection: a balanced accuracy
       of 0.875 with two classes. A weaker one is not reported as a shortcut.
    3. Of its variation *within* the classes the rest of the sample explains a tenth at
       most, by ridge regression with a linear and with a Gaussian kernel. The rest is
       the image from half a patch beside the patch on; the image with standardized
       channels, for what it is like as a whole; the other columns. A stroke goes on
       outside a patch; a planted square does not.
    4. Its errors are sure, as those of a sign that lies, while parts of objects err
       where they are unsure: its right predictions are surer than wrong ones of the
       same class with a probability of 0.8 at most (0.5: not at all), the margins
       spread within the classes by half of the way between these at most. The 0.8 is
       for the end of a one-sided 95 % interval, so that few errors tell nothing; then
       the margins spread by 0.05 at most, as those of a sign that is there or not.
    5. The rest does not predict y better than it by more than 0.08.

    Point 1 alone is a test with a level of its own, which holds where X tells nothing
    of y. The others are conventions, set on digits, clothes, photographs and tables so
    that parts of objects seldom pass; ``benchmarks/diagnosis.py`` counts how often they
    do, and how often a planted shortcut is found. On a small table of which one column
    decides the class by itself there are many false alarms (wine: 19 %).

    What can't be told: a shortcut that looks like a core feature, such as a background
    that fills the image, or a part of the object itself. A core feature that looks like
    a shortcut is reported as one: a column, or a mark in a place of its own, that
    decides y and has nothing in common with the others. A shortcut in changing places
    (a stamp in one of four corners) is not seen by a patch. Two shortcuts that are seen
    by the same probes may hide each other. One that never lies varies with the class
    alone, so that every probe that sees it is reported. Of many classes, one that has a
    shortcut of its own is not seen among the others: ask for ``y == label``.

    Examples
    --------
    >>> from masktune_sk.datasets import load_shortcut_digits
    >>> from masktune_sk.inspection import diagnose_shortcut
    >>> digits = load_shortcut_digits(conflict_ratio=0.05)
    >>> diagnosis = diagnose_shortcut(
    ...     digits.data, digits.target, max_samples=300, random_state=0
    ... )
    >>> diagnosis.has_shortcut, diagnosis.scope
    (True, 'local')
    >>> print(diagnosis.verdict)
    Evidence of a shortcut: patch (rows 0 to 3, columns 0 to 3) by itself ...
    """
    if 1 / (n_permutations + 1) > alpha:
        raise ValueError(
            f"With n_permutations={n_permutations} no p-value is below "
            f"{1 / (n_permutations + 1):.3g}, and none reaches alpha={alpha}. Pass "
            f"n_permutations={int(np.ceil(1 / alpha - 1 - 1e-9))} or more."
        )
    # A stream of our own: the data may have been drawn with the same seed.
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    random = np.random.RandomState(seed)
    samples = read_samples(
        X, y, cv=cv, max_samples=max_samples, max_side=max_side, random=random
    )
    probes = make_probes(samples)
    alone = predict_alone(
        probes,
        samples.y,
        cv=cv,
        n_permutations=n_permutations,
        random=random,
        n_jobs=n_jobs,
    )
    evidence = judge_probes(probes, alone, Rest(samples), alpha=alpha, random=random)
    if estimator is not None:
        evidence += judge_nets(estimator, X, y, alpha=alpha, random=random)
    counts = np.bincount(samples.y).tolist()
    return ShortcutDiagnosis(
        evidence=evidence,
        n_samples=len(samples.y),
        n_given=samples.n_given,
        n_probes=len(probes),
        class_counts=dict(zip(samples.classes.tolist(), counts, strict=True)),
    )
