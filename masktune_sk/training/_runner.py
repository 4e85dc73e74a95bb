"""The stage runner: sets a net up for one training run, and puts it back."""

import dis
from contextlib import contextmanager

import torch
from skorch.callbacks import Callback
from tqdm.auto import tqdm

from ..data import BatchIterator, Source, TorchView
from ._monitors import EpochMonitor, ProgressBar
from ._state import torch_attributes

__all__ = ["StageRun", "batch_iterators", "iterator_params"]

# Names of the callbacks that a NeuralNetClassifier brings by itself. They only time,
# score and print, so they are welcome in every stage; a user's own may not be.
BOOKKEEPING = frozenset(
    {"epoch_timer", "train_loss", "valid_loss", "valid_acc", "print_log"}
)


def iterator_params(net, training):
    """Return the parameters that skorch would build an iterator with."""
    prefix = "iterator_train" if training else "iterator_valid"
    return {"batch_size": net.batch_size, **net.get_params_for(prefix)}


@contextmanager
def batch_iterators(net):
    """Read whole batches where the user left skorch's default loaders.

    Parameters
    ----------
    net : skorch.NeuralNet
        Changed for the time of the context.
    """
    saved = net.iterator_train, net.iterator_valid
    if BatchIterator.can_replace(saved[0], net.get_params_for("iterator_train")):
        net.iterator_train = BatchIterator
    if BatchIterator.can_replace(saved[1], net.get_params_for("iterator_valid")):
        net.iterator_valid = BatchIterator
    try:
        yield net
    finally:
        net.iterator_train, net.iterator_valid = saved


class StageRun:
    """One training of a net, as a context manager.

    Inside, the net reads whole batches, validates on our hold-out, is silent unless
    told otherwise, and calls our monitors. Afterwards it is as the user set it up, in
    eval mode.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net of ours (never the user's object).
    stage : str
        Name of the stage, for messages.
    train : Source
        Rows to train on.
    valid : Source or torch Dataset, default=None
        The hold-out, or a validation set of the user's own.
    augment : callable, default=None
        Applied to each training sample.
    user_callbacks : bool, default=True
        Call the user's callbacks, or only those that time, score and print: a
        ``Checkpoint(load_best=True)`` or a scheduler would undo a refit.
    keep_best : bool, default=False
        Keep the weights of the best epoch.
    verbose : int, default=0
        1: a progress bar; 2: skorch's table.
    """

    def __init__(
        self,
        net,
        stage,
        *,
        train,
        valid=None,
        augment=None,
        user_callbacks=True,
        keep_best=False,
        verbose=0,
    ):
        self.net = net
        self.stage = stage
        self.dataset = TorchView(train, augment)
        self.labels = train.labels
        self.valid_dataset = TorchView(valid) if isinstance(valid, Source) else valid
        self.user_callbacks = user_callbacks
        self.keep_best = keep_best
        self.verbose = verbose
        self.monitor = EpochMonitor(stage, keep_best)
        self._bar = None

    def __enter__(self):
        net = self.net
        self._saved = {
            name: getattr(net, name)
            for name in ("train_split", "verbose", "callbacks_")
        }
        self._iterators = batch_iterators(net)
        self._iterators.__enter__()
        net.train_split = self._split if self.valid_dataset is not None else None
        net.verbose = int(self.verbose > 1)
        net.callbacks_ = [("epoch_monitor", self.monitor)] + [
            (name, callback)
            for name, callback in net.callbacks_
            if self.user_callbacks or name in BOOKKEEPING
        ]
        return self

    def __exit__(self, *error):
        for name, value in self._saved.items():
            setattr(self.net, name, value)
        self._iterators.__exit__(*error)
        for module in torch_attributes(self.net, torch.nn.Module).values():
            module.eval()
        if self._bar is not None:
            self._bar.close()

    def _split(self, dataset, y=None, **kwargs):
        return dataset, self.valid_dataset

    def fit(self, epochs, *, before=None):
        """Train.

        Parameters
        ----------
        epochs : int
            How many.
        before : callable, default=None
            Called with the net just before the first batch, after the callbacks' own
            preparations: the place for checks that need a net which can run.
        """
        net = self.net
        n_batches = self._n_batches()
        if self.verbose == 1:
            total = None if n_batches is None else n_batches * epochs
            self._bar = tqdm(total=total, desc=self.stage, unit="batch")
            net.callbacks_.append(("progress", ProgressBar(self._bar)))
        net.notify("on_train_begin", X=self.dataset, y=self.labels)
        try:
            if before is not None:
                before(net)
            net.fit_loop(self.dataset, self.labels, epochs=epochs)
        except KeyboardInterrupt as interrupt:
            # skorch's callbacks stop a training by raising what Ctrl-C raises.
            if not _raised_by_callback(interrupt):
                raise
        net.notify("on_train_end", X=self.dataset, y=self.labels)

    def _n_batches(self):
        """Count the batches of an epoch, and refuse an epoch without any."""
        iterator = self.net.get_iterator(self.dataset, training=True)
        try:
            n_batches = len(iterator)
        except TypeError:
            return None
        if n_batches == 0:
            raise ValueError(
                f"The {self.stage} stage would train on no batch at all: "
                f"{len(self.dataset)} rows, {iterator_params(self.net, True)}. Lower "
                "batch_size, or leave drop_last out."
            )
        return n_batches


def _raised_by_callback(interrupt):
    """Tell a callback's ``raise KeyboardInterrupt`` from a Ctrl-C that hit it."""
    traceback = interrupt.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    instruction = frame.f_code.co_code[traceback.tb_lasti]
    return (
        isinstance(frame.f_locals.get("self"), Callback)
        and dis.opname[instruction] == "RAISE_VARARGS"
    )
