"""Training: nets from what the user gave, one runner for every stage, two stages.

`resolve_net` and `build_net` make nets of our own, `train_erm` and `refit` train them
through one `StageRun`, and a `TrainedState` carries the result from stage to stage.
"""

from ._erm import split_as_net, train_erm
from ._net import (
    build_net,
    check_output,
    check_trains,
    has_own_split,
    predict_proba,
    resolve_net,
)
from ._refit import refit
from ._runner import StageRun, iterator_params
from ._seed import seeded
from ._state import TrainedState, torch_attributes

__all__ = [
    "StageRun",
    "TrainedState",
    "build_net",
    "check_output",
    "check_trains",
    "has_own_split",
    "iterator_params",
    "predict_proba",
    "refit",
    "resolve_net",
    "seeded",
    "split_as_net",
    "torch_attributes",
    "train_erm",
]
