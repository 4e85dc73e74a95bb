"""scikit-learn's own checks, for every estimator, with no expected failure."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback

from masktune_sk import (
    DeNetDMClassifier,
    MaskTuneClassifier,
    RejectOptionClassifier,
    RRClArCClassifier,
)
from masktune_sk.modules import MLP
from tests.nets import ConceptFromX, tiny_net


class FitModuleToData(Callback):
    """skorch's usual way to a module whose size depends on the data."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        net.set_params(
            module__n_features=X.shape[1], module__n_classes=len(np.unique(y))
        )


ESTIMATORS = [
    MaskTuneClassifier(),
    MaskTuneClassifier(
        tiny_net(
            MLP,
            module__n_features=1,
            module__n_classes=2,
            callbacks=[FitModuleToData()],
            max_epochs=20,
            iterator_valid__batch_size=128,
        ),
        # Some checks have two features: masking one for an epoch must not undo ERM.
        refit_lr=0.001,
    ),
    DeNetDMClassifier(),
    RRClArCClassifier(method="none"),
    ConceptFromX(min_concept_samples=1),
    RejectOptionClassifier(LogisticRegression()),
]


# Toy data: there is no shortcut for the branches to part over.
@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.RolesUndecidedWarning")
@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.StarvedBranchWarning")
@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.ConceptWarning")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check(estimator, check):
    check(estimator)
