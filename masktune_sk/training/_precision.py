"""Precision: how a net computes, in every stage alike."""

import inspect
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.parameter import UninitializedTensorMixin

__all__ = [
    "channels_last",
    "computing",
    "fused_params",
    "resolve_precision",
    "sums_of_one",
]

# How far a sum of probabilities may be from 1, each rounded to 8 bits.
ROUNDING = 0.02

# Whoever sets one of these has chosen how the optimizer steps.
STEP_CHOICES = frozenset({"fused", "foreach", "differentiable", "capturable"})


def resolve_precision(precision, device):
    """Decide what "auto" means on this machine.

    Parameters
    ----------
    precision : {"float32", "bf16", "auto"}
        What the user asked for.
    device : str or torch.device
        Where the net computes.

    Returns
    -------
    precision : {"float32", "bf16"}
        "auto" is bf16 where the device multiplies bfloat16 matrices in hardware.
    """
    if precision != "auto":
        return precision
    kind = torch.device(device).type
    if kind == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif kind == "cpu":
        # Vector instructions for bfloat16 (AVX512-BF16) are no faster than float32's;
        # matrix units are. Not public, and no answer is no.
        fast = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    else:
        fast = False
    return "bf16" if fast else "float32"


@contextmanager
def computing(net, precision):
    """Let the module of a net compute in a precision.

    In "bf16" its forward pass runs under autocast, with images and convolutions in the
    channels-last layout, in which bfloat16 kernels are fastest. Weights, what the
    module returns and the loss stay float32. In "float32" nothing is changed.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialised net; its module is as it was after the context, but for the
        memory layout of its weights.
    precision : {"float32", "bf16"}
        Resolved.
    """
    if precision == "float32":
        yield net
        return
    channels_last(net)
    module = net.module_
    bf16 = _InBF16(next((p.device.type for p in module.parameters()), "cpu"))
    handles = (
        module.register_forward_pre_hook(bf16.enter, with_kwargs=True),
        # First of all, so that contexts within contexts are left in order.
        module.register_forward_hook(bf16.leave, prepend=True, always_call=True),
    )
    try:
        yield net
    finally:
        for handle in handles:
            handle.remove()


class _InBF16:
    """Hooks around the forward pass of a module; a copy of the module gets idle ones.

    Parameters
    ----------
    device : str or None
        Its kind; None: do nothing.
    """

    def __init__(self, device):
        self.device = device
        self.contexts = []

    def __reduce__(self):
        return _InBF16, (None,)

    def enter(self, module, args, kwargs):
        if self.device is None:
            return None
        context = torch.autocast(self.device, torch.bfloat16)
        context.__enter__()
        self.contexts.append(context)
        kwargs = {name: _channels_last(value) for name, value in kwargs.items()}
        return tuple(_channels_last(value) for value in args), kwargs

    def leave(self, module, args, output):
        if self.device is None:
            return None
        self.contexts.pop().__exit__(None, None, None)
        return _as_float32(output)


def channels_last(net):
    """Bring the weights of convolutions into the layout that bfloat16 kernels like.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialised net; its optimizers go on with the same parameters.
    """
    for tensor in (*net.module_.parameters(), *net.module_.buffers()):
        if not isinstance(tensor, UninitializedTensorMixin) and tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def sums_of_one(proba, precision):
    """Undo what bfloat16 does to a module that ends in a softmax: sums only near 1.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities.
    precision : {"float32", "bf16"}
        That they were computed in.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes)
        Of "bf16" normalised, where the rows are near a sum of 1.
    """
    if precision == "float32":
        return proba
    sums = proba.sum(axis=1, keepdims=True)
    return np.where(abs(sums - 1) < ROUNDING, proba / sums, proba)


def fused_params(net):
    """Return the parameters that make a net's optimizer step in one kernel.

    Parameters
    ----------
    net : skorch.NeuralNet
        An unfitted net.

    Returns
    -------
    params : dict
        For ``net.set_params``; empty where the optimizer has no fused step, or the user
        has chosen how it steps.
    """
    chosen = {name.rpartition("__")[2] for name in net.get_params_for("optimizer")}
    chosen |= set(getattr(net.optimizer, "keywords", ()))
    if chosen & STEP_CHOICES:
        return {}
    try:
        accepted = inspect.signature(net.optimizer).parameters
    except (TypeError, ValueError):
        return {}
    return {"optimizer__fused": True} if "fused" in accepted else {}


def _channels_last(value):
    if isinstance(value, torch.Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _as_float32(output):
    if isinstance(output, torch.Tensor):
        return output.float() if output.dtype == torch.bfloat16 else output
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*map(_as_float32, output))
    if isinstance(output, tuple | list):
        return type(output)(map(_as_float32, output))
    return output
