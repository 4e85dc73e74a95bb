"""The stage runner: sets a net up for one training run, and puts it back."""

import dis
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..data import BatchIterator, Source, TorchView, worker_errors
from ._fingerprint import content_hash
from ._monitors import EpochMonitor, ProgressBar
from ._precision import computing, sums_of_one
from ._processes import Processes, SharedTraining
from ._state import snapshot, torch_attributes
from ._step import lean_steps, modes_set_once
from ._threads import CoreWatch

__all__ = ["StageRun", "batch_iterators", "batches_in_order", "iterator_params"]

# Names of the callbacks that a NeuralNetClassifier brings by itself. They only time,
# score and print, so they are welcome in every stage; a user's own may not be.
BOOKKEEPING = frozenset(
    {"epoch_timer", "train_loss", "valid_loss", "valid_acc", "print_log"}
)

# In place of skorch's batch_size=-1 (all samples at once).
WHOLE_BATCH = 256
# What a DataLoader needs to know of its worker processes.
WORKER_PARAMS = frozenset(
    {
        "num_workers",
        "pin_memory",
        "timeout",
        "worker_init_fn",
        "multiprocessing_context",
        "prefetch_factor",
    }
)


def iterator_params(net, training):
    """Return the parameters that skorch would build an iterator with."""
    prefix = "iterator_train" if training else "iterator_valid"
    return {"batch_size": net.batch_size, **net.get_params_for(prefix)}


def reads_whole_batches(net, training):
    """Tell whether our iterator stands for the loader of a net."""
    prefix = "iterator_train" if training else "iterator_valid"
    iterator = getattr(net, prefix)
    ours = getattr(iterator, "func", iterator) is BatchIterator
    return ours or BatchIterator.can_replace(iterator, net.get_params_for(prefix))


@contextmanager
def batch_iterators(net, processes=None):
    """Read whole batches where the user left skorch's default loaders.

    Parameters
    ----------
    net : skorch.NeuralNet
        Changed for the time of the context.
    processes : Processes, default=None
        Those that train together, each on its share of a batch.

    Raises
    ------
    ValueError
        If the user's own iterator would have to share out its batches.
    """
    saved = net.iterator_train, net.iterator_valid
    ours = BatchIterator
    if torch.device(net.device or "cpu").type == "cuda":
        ours = partial(BatchIterator, device=net.device)
    if processes is not None and processes.size > 1:
        net.iterator_train = _shared_iterator(net, ours, processes)
    elif reads_whole_batches(net, training=True):
        net.iterator_train = ours
    if reads_whole_batches(net, training=False):
        net.iterator_valid = ours
    try:
        yield net
    finally:
        net.iterator_train, net.iterator_valid = saved


def _shared_iterator(net, ours, processes):
    known = BatchIterator.PARAMETERS | WORKER_PARAMS
    params = set(net.get_params_for("iterator_train"))
    if net.iterator_train is not DataLoader or not params <= known:
        raise ValueError(
            f"{processes.size} processes train together, and the estimator's "
            f"iterator_train ({net.iterator_train}, {sorted(params)}) can't be shared "
            f"out. Leave it as DataLoader, with no parameters but {sorted(known)}."
        )
    # In every process the same orders, whatever else draws there; and the first one is
    # that of a single process.
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    share = (processes.rank, processes.size)
    return partial(ours, share=share, generator=generator)


def batches_in_order(net, source):
    """Read the samples of a source in order, as a net's predictions read them.

    Parameters
    ----------
    net : skorch.NeuralNet
        Its ``iterator_valid`` parameters say how many at once, and with how many
        worker processes.
    source : Source
        The samples.

    Yields
    ------
    X : torch.Tensor of shape (batch_size, ...), float32
        The next samples.
    """
    params = iterator_params(net, training=False)
    size = params["batch_size"] if params["batch_size"] > 0 else WHOLE_BATCH
    if net.iterator_valid is DataLoader and params.get("num_workers"):
        workers = {name: params[name] for name in WORKER_PARAMS & set(params)}
        with worker_errors("saliency maps", params["num_workers"]):
            for X, _ in DataLoader(TorchView(source), size, **workers):
                yield X
    else:
        pin = torch.device(net.device or "cpu").type == "cuda"
        for _, X in source.batches(size):
            yield X.pin_memory() if pin else X


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
    precision : {"float32", "bf16"}, default="float32"
        See `computing`.
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
        precision="float32",
        verbose=0,
    ):
        self.net = net
        self.stage = stage
        self.dataset = TorchView(train, augment)
        self.labels = train.labels
        self.valid_dataset = TorchView(valid) if isinstance(valid, Source) else valid
        self.user_callbacks = user_callbacks
        self.precision = precision
        self.processes = Processes.of(net)
        self.verbose = verbose if self.processes.rank == 0 else 0
        # A net of another class may predict otherwise than it validates.
        predicts_so = type(net) is NeuralNetClassifier and isinstance(valid, Source)
        self.monitor = EpochMonitor(stage, keep_best, keep_outputs=predicts_so)
        self._bar = None

    def __enter__(self):
        net = self.net
        self._saved = {
            name: getattr(net, name)
            for name in ("train_split", "verbose", "callbacks_")
        }
        net.train_split = self._split if self.valid_dataset is not None else None
        net.verbose = int(self.verbose > 1)
        users = [
            (name, callback)
            for name, callback in net.callbacks_
            if self.user_callbacks or name in BOOKKEEPING
        ]
        if self.verbose < 2 and all(name in BOOKKEEPING for name, _ in users):
            # Nobody looks at what skorch's own callbacks compute for each batch.
            users = []
        self.monitor.others_follow = bool(users)
        ours = [("epoch_monitor", self.monitor)]
        if torch.get_num_threads() > 1:
            ours.append(("core_watch", CoreWatch()))
        if self.processes.size > 1:
            ours.insert(0, ("shared_training", SharedTraining(self.processes)))
        net.callbacks_ = ours + users
        self._contexts = ExitStack()
        self._contexts.enter_context(batch_iterators(net, self.processes))
        self._contexts.enter_context(computing(net, self.precision))
        self._contexts.enter_context(modes_set_once(net))
        if not users:
            self._contexts.enter_context(lean_steps(net))
        return self

    def __exit__(self, *error):
        for name, value in self._saved.items():
            setattr(self.net, name, value)
        self._contexts.__exit__(*error)
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
        self._check_shares()
        if self.verbose == 1:
            total = None if n_batches is None else n_batches * epochs
            self._bar = tqdm(total=total, desc=self.stage, unit="batch")
            net.callbacks_.append(("progress", ProgressBar(self._bar)))
        net.notify("on_train_begin", X=self.dataset, y=self.labels)
        try:
            if before is not None:
                before(net)
            n_workers = max(
                iterator_params(net, training).get("num_workers", 0)
                for training in (True, False)
            )
            with worker_errors(self.stage, n_workers):
                net.fit_loop(self.dataset, self.labels, epochs=epochs)
        except KeyboardInterrupt as interrupt:
            # skorch's callbacks stop a training by raising what Ctrl-C raises.
            if not _raised_by_callback(interrupt):
                raise
        net.notify("on_train_end", X=self.dataset, y=self.labels)

    def holdout_proba(self, *, best=False):
        """Return what the trained net predicts for the hold-out, without a pass.

        Parameters
        ----------
        best : bool, default=False
            The net of the best epoch.

        Returns
        -------
        proba : ndarray of shape (n_holdout, n_classes) or None
            From the validation pass of the epoch; None where that can't be relied on.
        """
        monitor, net = self.monitor, self.net
        outputs = monitor.best_outputs_ if best else monitor.outputs_
        if not outputs or sum(map(len, outputs)) != len(self.valid_dataset):
            return None
        changed = monitor.others_follow and not best
        if changed and content_hash(snapshot(net)) != monitor.digest_:
            return None
        nonlinearity = net._get_predict_nonlinearity()
        proba = torch.cat([nonlinearity(y_pred) for y_pred in outputs]).numpy()
        return sums_of_one(proba, self.precision)

    def _check_shares(self):
        """Refuse batches that leave a process without a sample."""
        size = iterator_params(self.net, training=True)["batch_size"]
        smallest = min(size if size > 0 else np.inf, len(self.dataset))
        if smallest < self.processes.size:
            raise ValueError(
                f"{self.processes.size} processes share a batch of {smallest} samples. "
                "Start fewer, or raise batch_size."
            )

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
