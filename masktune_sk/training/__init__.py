"""Training: nets from what the user gave, one runner for every stage, two stages.

`resolve_net` and `build_net` make nets of our own, `train_erm` and `refit` train them
through one `StageRun`, and a `TrainedState` carries the result from stage to stage.
"""

from ._cache import StageCache
from ._erm import split_as_net, train_erm
from ._net import (
    build_net,
    check_output,
    check_trains,
    finite_rows,
    forward,
    has_own_split,
    predict_proba,
    resolve_net,
)
from ._precision import computing, resolve_precision
from ._processes import Processes
from ._refit import refit
from ._runner import StageRun, batches_in_order, iterator_params
from ._seed import seeded
from ._state import TrainedState, torch_attributes
from ._threads import fit_threads

__all__ = [
    "Processes",
    "StageCache",
    "StageRun",
    "TrainedState",
    "batches_in_order",
    "build_net",
    "check_output",
    "check_trains",
    "computing",
    "finite_rows",
    "fit_threads",
    "forward",
    "has_own_split",
    "iterator_params",
    "predict_proba",
    "refit",
    "resolve_net",
    "resolve_precision",
    "seeded",
    "split_as_net",
    "torch_attributes",
    "train_erm",
]
