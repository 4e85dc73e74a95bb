"""What does abstaining buy, and whom?

Digits 0-4 against 5-9. In 99 % of the training images a red square gives the class
away. In use it does not: half of the images contradict it. Two classifiers may abstain
there: the network trained as usual (ERM), by its largest probability, and MaskTune, by
the product of two networks. Both are asked for a risk of at most 10 %, with a
certificate. Which digits do they accept for that, and how often are they right?

    python examples/05_selective_prediction.py [picture.png]

Half a minute on one core. Nothing is downloaded.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from masktune_sk import MaskTuneClassifier, RejectOptionClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.metrics import (
    RiskCoverageDisplay,
    coverage_score,
    group_accuracies,
    metric_by_group,
    selective_accuracy_score,
)
from masktune_sk.modules import default_net

# One thread is as fast for so small a network, and the numbers do not depend on how
# many cores there are.
torch.set_num_threads(1)

MAX_RISK = 0.1

train = load_shortcut_digits()
# With its classes named, the ERM network inside is a classifier of its own.
net = default_net((3, 28, 28), n_classes=2, classes=[0, 1], max_epochs=10)
masktune = MaskTuneClassifier(net, validation_fraction=0, random_state=0)
masktune.fit(train.data.astype(np.float32), train.target)
erm = RejectOptionClassifier(FrozenEstimator(masktune.erm_net_))

# Of the digits that nothing has seen, one half calibrates. It has to be drawn as those
# to come are: half of them conflict, as they will.
new = load_shortcut_digits(subset="test", conflict_ratio=0.5)
order = np.random.RandomState(0).permutation(len(new.data))
calibration, rest = np.split(order, 2)
X_calibration = new.data[calibration].astype(np.float32)
y_calibration = new.target[calibration]
erm.fit(X_calibration, y_calibration)

# The other half is the test: each digit with the square of its class, and with that of
# the other class.
X_test, y_test, groups = [], [], []
for square in ("aligned", "conflicting"):
    digits = load_shortcut_digits(subset="test", square=square)
    X_test.append(digits.data[rest].astype(np.float32))
    y_test.append(digits.target[rest])
    groups += [f"{square}: {digits.group_names[g]}" for g in digits.groups[rest]]
X_test, y_test = np.concatenate(X_test), np.concatenate(y_test)

classifiers = {"ERM": erm, "MaskTune": masktune}
accuracy = {}
figure, axes = plt.subplots(
    1, 2, figsize=(9, 5), sharex=True, sharey=True, layout="constrained"
)
for (name, clf), ax in zip(classifiers.items(), axes, strict=True):
    accuracy[name] = group_accuracies(y_test, clf.predict(X_test), groups=groups)
    RiskCoverageDisplay.from_estimator(clf, X_test, y_test, groups=groups, ax=ax)
    ax.set_title(f"{name}: error {100 * (1 - clf.score(X_test, y_test)):.0f} %")
    ax.get_legend().remove()
axes[1].set_ylabel("")
lines = axes[0].get_legend_handles_labels()
figure.legend(*lines, loc="outside lower center", ncols=2)
path = sys.argv[1] if len(sys.argv) > 1 else "05_selective_prediction.png"
figure.savefig(path, dpi=120)

for name, clf in classifiers.items():
    print(f"\n{name}, risk at most {MAX_RISK:.0%}")
    try:
        clf.calibrate(X_calibration, y_calibration, max_risk=MAX_RISK)
    except ValueError as error:
        print(error)
        continue
    print(clf.certificate_)
    y_pred, accepted = clf.predict_with_reject(X_test)
    share = metric_by_group(coverage_score, accepted, groups=groups)
    kept = metric_by_group(
        selective_accuracy_score, y_test, y_pred, accepted, groups=groups
    )
    print(f"\n{'test':36}{'accuracy':>10}{'accepted':>10}{'accuracy of these':>19}")
    for group in share:
        print(
            f"{group:36}{accuracy[name][group]:>10.3f}{share[group]:>10.3f}"
            f"{kept[group]:>19.3f}"
        )
print(f"\nPicture: {path}")
