"""What the stages of one fit work on."""

from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
import torch

from .data import Source
from .training import (
    Processes,
    StageCache,
    TrainedState,
    build_net,
    check_output,
    check_trains,
    seeded,
    train_erm,
)

__all__ = ["PACKAGES", "FitData"]

#: Results may differ between versions of these.
PACKAGES = ("masktune_sk", "torch", "skorch", "scikit-learn")

# Parameters of a net that only say what it prints, and where it runs.
NO_PART_OF_RESULTS = frozenset({"verbose", "_params_to_validate", "accelerator"})


@dataclass
class FitData:
    """What the stages of one fit work on.

    Attributes
    ----------
    template : skorch.NeuralNetClassifier
        Unfitted; every net of the fit is a clone of it.
    fitted : skorch.NeuralNetClassifier or None
        A frozen net that stands for the first training; to be read only.
    train : Source
        Rows to train on.
    rows : ndarray of int
        Which rows of X these are.
    valid : Source, torch Dataset or None
        For skorch's validation set.
    n_classes : int
        Number of classes.
    random : RandomState
        Draws the seed of each stage.
    precision : {"float32", "bf16"}
        Of every stage.
    processes : Processes
        Those that run this fit together.
    cache : StageCache
        Where results of stages are found again.
    repeatable : bool
        Whether another fit would draw the same seeds, so that storing makes sense.
    augment : callable or None
        Applied to each training sample.
    verbose : int
        How much is printed.
    known : dict of str to ndarray of shape (n_train, ...)
        What else the user knows of the training rows.
    classes : ndarray of shape (n_classes,) or None
        Labels as they are, in the order of the encoded ones.
    """

    template: object
    fitted: object
    train: Source
    rows: np.ndarray
    valid: object
    n_classes: int
    random: np.random.RandomState
    precision: str
    processes: Processes
    cache: StageCache
    repeatable: bool
    augment: object
    verbose: int
    known: dict = field(default_factory=dict)
    classes: np.ndarray | None = None
    _identity: str | None = field(default=None, init=False)

    def seed(self):
        """Draw the seed of a stage."""
        return int(self.random.randint(np.iinfo(np.int32).max))

    def probe(self):
        """Return a few rows, spread over the training rows."""
        n = len(self.train)
        return self.train.take(np.unique(np.linspace(0, n - 1, 8).astype(int)))

    def key(self, *parts):
        """Hash what every stage depends on, and what one does besides.

        Parameters
        ----------
        *parts : object
            What this stage depends on.

        Returns
        -------
        key : str or None
            None if its result is not to be stored.
        """
        if not (self.cache.stores and self.repeatable):
            return None
        if self._identity is None:
            # Of a net inside FrozenEstimator the weights are with the stage.
            net = {
                name: value
                for name, value in self.template.get_params(deep=False).items()
                if name not in NO_PART_OF_RESULTS
            }
            # Its kind counts: of several processes each has a device of its own.
            net["device"] = torch.device(net.get("device") or "cpu").type
            valid = self.valid.fingerprint() if isinstance(self.valid, Source) else None
            self._identity = self.cache.key(
                [version(name) for name in PACKAGES],
                type(self.template),
                net,
                self.train.fingerprint(),
                valid,
                self.precision,
            )
        return self._identity and self.cache.key(self._identity, *parts)

    def fetch(self, stage, key, compute):
        """Return the stored result of a stage, or compute and store it."""
        return self.cache.fetch(stage, key, compute, self.processes)

    def train_erm(self, check, *, keep_best=False, stage="ERM", seed=None):
        """Run the first training, find its result, or take the frozen net for it.

        Parameters
        ----------
        check : callable
            What a method asks of a net, ``check(net)``, before the first batch.
        keep_best : bool, default=False
            Keep the weights of the epoch with the best validation accuracy too.
        stage : str, default="ERM"
            Name for messages and in the cache.
        seed : int, default=None
            Of the training. None: the next that is drawn.

        Returns
        -------
        state : TrainedState
            What was trained.
        key : str or None
            What a stage that looks at it depends on.

        Raises
        ------
        ValueError
            If the net, the samples and `augment` do not go together, or if the stored
            result is that of another number of processes.
        """
        seed = self.seed() if seed is None else seed

        def check_all(net):
            self._check_net(net)
            check(net)

        if self.fitted is not None:
            state = TrainedState.of(self.fitted)
            with seeded(seed):
                check_all(build_net(self.template, state, precision=self.precision))
            return state, self.key(state.weights)
        key = self.key(seed, self.augment, keep_best)

        def train():
            return train_erm(
                self.template,
                self.train,
                valid=self.valid,
                seed=seed,
                augment=self.augment,
                keep_best=keep_best,
                before=check_all,
                stage=stage,
                precision=self.precision,
                verbose=self.verbose,
            )

        state = self.fetch(stage, key, train)
        if state.n_processes != self.processes.size:
            raise ValueError(
                f"The {stage} stage in memory was trained by {state.n_processes} "
                f"process(es), and this fit has {self.processes.size}. Start as many "
                "again, or name another memory; nothing was changed there."
            )
        return state, key

    def _check_net(self, net):
        """Refuse what only a net that can run will show."""
        probe = self.probe()
        check_output(net, probe, self.n_classes, self.precision)
        X = probe.batch(np.arange(len(probe)))
        check_trains(net, X, len(self.train))
        if self.augment is not None:
            shape = tuple(getattr(self.augment(X[0]), "shape", ()))
            if shape != self.train.item_shape:
                raise ValueError(
                    "augment must return a tensor of the shape it is given, "
                    f"{self.train.item_shape}; got {shape}."
                )
