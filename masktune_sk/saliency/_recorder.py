"""Looking inside a net without leaving a trace."""

from contextlib import contextmanager

import torch
from torch import nn

from ..training import torch_attributes

__all__ = ["LayerRecorder", "class_scores", "looking_inside"]


@contextmanager
def looking_inside(net):
    """Put a net in eval mode with gradients of nothing but what is asked for.

    No parameter requires a gradient inside, so that no graph is recorded before the
    tensor that is explained. Modes and flags are restored, whatever happens.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialised net.
    """
    modules = [
        m for top in torch_attributes(net, nn.Module).values() for m in top.modules()
    ]
    parameters = [p for m in modules for p in m.parameters(recurse=False)]
    modes = [m.training for m in modules]
    flags = [p.requires_grad for p in parameters]
    try:
        for module in modules:
            module.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield net
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


class LayerRecorder:
    """Record the output of one layer, and make it the leaf that gradients go to.

    A context manager; the hook is gone after it.

    Parameters
    ----------
    module : torch.nn.Module
        The layer.

    Attributes
    ----------
    output : torch.Tensor
        What the layer returned in its last call, as a leaf that requires a gradient.
    """

    def __init__(self, module):
        self.module = module
        self.output = None

    def __enter__(self):
        self._handle = self.module.register_forward_hook(self._record)
        return self

    def __exit__(self, *error):
        self._handle.remove()

    def _record(self, module, args, output):
        self.output = output.detach().requires_grad_()
        # A copy goes on through the net: what follows may write in place, which torch
        # does not allow on a leaf.
        return self.output.clone()


def class_scores(net, output, target=None):
    """Return the logit of one class for each sample.

    Parameters
    ----------
    net : skorch.NeuralNet
        The net; under `NLLLoss` skorch modules return probabilities, whose logarithm is
        taken.
    output : torch.Tensor of shape (n_samples, n_classes), or tuple with it first
        What the module returned.
    target : torch.Tensor of shape (n_samples,), dtype int64, default=None
        The classes; None: the predicted ones.

    Returns
    -------
    scores : torch.Tensor of shape (n_samples,)
        One score a sample.
    """
    output = output[0] if isinstance(output, tuple) else output
    if target is None:
        target = output.argmax(dim=1)
    scores = output.gather(1, target.to(output.device)[:, None])[:, 0]
    if isinstance(net.criterion_, nn.NLLLoss):
        scores = torch.log(scores + torch.finfo(scores.dtype).eps)
    return scores
