"""Processes that train one net together, as Hugging Face Accelerate starts them.

Every process runs the same script on the same data, and has the whole net. A batch is
shared out among them, gradients are summed before each step, and so all of them hold
the same weights after it. Everything else each process does for itself, but for maps,
of which each computes a part.
"""

import random
from contextlib import nullcontext

import numpy as np
import torch
from skorch.callbacks import Callback

from ._state import torch_attributes

__all__ = ["LocalAccelerator", "Processes", "SharedTraining", "use_locally"]

# Whole copies of the net, each in its own process; parts of one net are another matter.
WHOLE_COPIES = frozenset({"NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU"})


class LocalAccelerator:
    """Stand for the `accelerate.Accelerator` of a net, and change nothing on the net.

    skorch lets the accelerator wrap modules, split batches and gather predictions. Then
    callbacks meet other names of parameters, a prediction hangs unless every process
    makes it, and a net that is unpickled elsewhere gathers from processes that are not
    there. Here a net stays as it is; `SharedTraining` is what makes training a shared
    one.

    Parameters
    ----------
    accelerator : accelerate.Accelerator or None
        The user's; None after unpickling.
    """

    device_placement = False
    is_main_process = True
    optimizer_step_was_skipped = False

    def __init__(self, accelerator):
        self.accelerator = accelerator

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return LocalAccelerator, (None,)

    def prepare(self, *parts):
        """Return what is given."""
        return parts[0] if len(parts) == 1 else parts

    def unwrap_model(self, module, **kwargs):
        """Return what is given."""
        return module

    def gather_for_metrics(self, output, **kwargs):
        """Return what is given."""
        return output

    def accumulate(self, *modules):
        """Do nothing."""
        return nullcontext()

    def autocast(self):
        """Compute in the precision that the user's accelerator was made with."""
        return (
            nullcontext() if self.accelerator is None else self.accelerator.autocast()
        )

    def backward(self, loss):
        """Compute gradients."""
        loss.backward()

    def wait_for_everyone(self):
        """Wait until all processes are here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def use_locally(net):
    """Give a net with an accelerator one that changes nothing on it.

    Parameters
    ----------
    net : skorch.NeuralNet
        An unfitted net of ours; of one without an accelerator nothing is changed.

    Returns
    -------
    net : skorch.NeuralNet
        The same.

    Raises
    ------
    ValueError
        If the accelerator is set up for something else than copies of the whole net.
    """
    accelerator = getattr(net, "accelerator", None)
    if accelerator is None or isinstance(accelerator, LocalAccelerator):
        return net
    kind = getattr(accelerator.distributed_type, "name", "NO")
    steps = accelerator.gradient_accumulation_steps
    unsupported = {
        f"distributed_type={kind}": kind not in WHOLE_COPIES,
        "mixed_precision='fp16'": accelerator.mixed_precision == "fp16",
        f"gradient_accumulation_steps={steps}": steps > 1,
    }
    found = [what for what, is_there in unsupported.items() if is_there]
    if found:
        raise ValueError(
            f"The estimator's Accelerator has {', '.join(found)}, which is not "
            "supported. Supported are copies of the whole net in several processes; "
            "for another precision there is precision='bf16'."
        )
    net.set_params(
        accelerator=LocalAccelerator(accelerator),
        # What is on "cpu:0", as Accelerate numbers it, torch can save and not load.
        device="cpu" if accelerator.device.type == "cpu" else str(accelerator.device),
        # skorch would print epochs through the accelerator, whatever verbose is.
        callbacks__print_log__sink=print,
    )
    return net


class Processes:
    """The processes that train a net together; one by itself where there are no others.

    Parameters
    ----------
    accelerator : accelerate.Accelerator, default=None
        Knows the others.

    Attributes
    ----------
    rank : int
        Number of this process.
    size : int
        How many there are.
    """

    def __init__(self, accelerator=None):
        self.accelerator = accelerator
        self.rank = 0 if accelerator is None else accelerator.process_index
        self.size = 1 if accelerator is None else accelerator.num_processes

    @classmethod
    def of(cls, net):
        """Return the processes that train a net."""
        local = getattr(net, "accelerator", None)
        return cls(getattr(local, "accelerator", None))

    def agree(self, value):
        """Return what the first process has.

        Parameters
        ----------
        value : object
            It can be pickled; that of the other processes does not count.

        Returns
        -------
        value : object
            That of the first.
        """
        if self.size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]

    def gather(self, value):
        """Return what each process has, in their order."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def check_same(self, value, what):
        """Refuse to go on where processes have different things.

        Parameters
        ----------
        value : object
            Small.
        what : str
            Its name, for the message.

        Raises
        ------
        ValueError
            In every process.
        """
        values = self.gather(value)
        if any(other != values[0] for other in values):
            raise ValueError(
                f"The {self.size} processes that train together have different {what}. "
                "Each must run the same script with the same samples, in the same "
                "order, and the same net; draw and shuffle with a fixed seed."
            )

    def in_parts(self, compute, n_samples):
        """Compute something of all samples, each process a part.

        Parameters
        ----------
        compute : callable
            Takes an array of indices; returns an array of as many rows.
        n_samples : int
            How many there are.

        Returns
        -------
        result : ndarray of shape (n_samples, ...)
            In order; the same in every process.
        """
        if self.size == 1 or n_samples < self.size:
            return compute(np.arange(n_samples))
        part = np.array_split(np.arange(n_samples), self.size)[self.rank]
        try:
            result = compute(part)
        except Exception as error:
            # The others wait for this part: tell them.
            result = error
        results = self.gather(result)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return np.concatenate(results)

    def sum(self, tensor):
        """Return the sum of a tensor over the processes."""
        return self.accelerator.reduce(tensor, reduction="sum")


class SharedTraining(Callback):
    """Train one net in several processes: a callback, to be called before all others.

    Parameters
    ----------
    processes : Processes
        More than one.
    """

    def __init__(self, processes):
        self.processes = processes

    def on_train_begin(self, net, **kwargs):
        """Forget an earlier training."""
        self._begun = False

    def on_epoch_begin(self, net, **kwargs):
        """Start from the same weights, and with other random numbers each."""
        self._buffers_agree = False
        if self._begun:
            return
        self._begun = True
        tensors = [t for m in modules_of(net) for t in m.state_dict().values()]
        first = self.processes.agree([t.cpu() for t in tensors])
        with torch.no_grad():
            for tensor, value in zip(tensors, first, strict=True):
                tensor.copy_(value)
        if self.processes.rank:
            # Or dropout would fall on the same places of every share.
            seed = (torch.initial_seed() + self.processes.rank) % 2**32
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002, what augments may draw from it
            random.seed(seed)

    def on_grad_computed(self, net, named_parameters, batch=None, **kwargs):
        """Make each gradient that of the whole batch."""
        gradients = [p.grad for _, p in named_parameters if p.grad is not None]
        # Shares of a batch may differ by one sample: each counts by its size.
        n = len(batch[0])
        count = torch.full((1,), n, dtype=torch.float32, device=gradients[0].device)
        flat = torch.cat([*(n * g.flatten().float() for g in gradients), count])
        *parts, total = self.processes.sum(flat).split(
            [*(g.numel() for g in gradients), 1]
        )
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_((part / total).view_as(gradient))

    def on_batch_begin(self, net, training=False, **kwargs):
        """Validate, which every process does whole, with the same buffers."""
        if not training and not self._buffers_agree:
            self._agree_on_buffers(net)

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Record the loss of the whole batch, which is what callbacks decide by."""
        if not training:
            return
        n, loss = len(batch[0]), net.history[-1, "batches", -1, "train_loss"]
        sums = torch.tensor([n * loss, n], dtype=torch.float64)
        total, n_all = self.processes.sum(sums.to(net.device)).tolist()
        net.history.record_batch("train_loss", total / n_all)
        net.history.record_batch("train_batch_size", int(n_all))

    def on_epoch_end(self, net, **kwargs):
        """Agree on buffers where nothing was validated."""
        if not self._buffers_agree:
            self._agree_on_buffers(net)

    def _agree_on_buffers(self, net):
        """Take the mean of running statistics, of which each saw one share."""
        for module in modules_of(net):
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.processes.sum(buffer) / self.processes.size)
        self._buffers_agree = True


def modules_of(net):
    return torch_attributes(net, torch.nn.Module).values()
