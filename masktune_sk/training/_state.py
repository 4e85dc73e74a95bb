"""What a training leaves behind: one record, whoever made it and whoever reads it."""

from dataclasses import dataclass, field

import numpy as np
import torch

__all__ = ["TrainedState", "snapshot", "torch_attributes"]


def torch_attributes(net, kind):
    """Return the fitted attributes of a net of one kind: modules or optimizers."""
    return {
        name: value
        for name, value in vars(net).items()
        if name.endswith("_") and isinstance(value, kind)
    }


def _to_cpu(value):
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_cpu(item) for item in value)
    return value


def _plain(row):
    """Return a row of skorch's history without batches and bookkeeping."""
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in row.items()
        if key != "batches" and not key.endswith(("_best", "_batch_count"))
    }


def snapshot(net):
    """Copy the weights and buffers of a net: its modules and its criteria.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialised net.

    Returns
    -------
    weights : dict of str to dict
        For each module or criterion attribute its state dict, on the CPU.
    """
    modules = torch_attributes(net, torch.nn.Module)
    return {name: _to_cpu(dict(m.state_dict())) for name, m in modules.items()}


@dataclass
class TrainedState:
    """The result of one training stage.

    ERM returns it, a fitted net can be turned into it, the refit starts from it.

    Attributes
    ----------
    weights : dict of str to dict
        State dicts of the net's modules and criteria after the last epoch.
    optimizer : dict of str to dict
        State dicts of the net's optimizers after the last epoch; empty if unknown.
    best_weights : dict or None
        Weights of the epoch with the best accuracy on the hold-out, if asked for.
    frozen : frozenset of (str, str)
        Parameters without a gradient: attribute of the net and name inside it. A
        callback may have frozen them, and callbacks do not run in the refit.
    module_params : dict
        Module parameters that callbacks set during the training.
    history : list of dict
        One row an epoch.
    holdout_proba : ndarray of shape (n_holdout, n_classes) or None
        What the net after the last epoch predicts for the hold-out, as its validation
        pass found it; None if that is not known.
    best_holdout_proba : ndarray of shape (n_holdout, n_classes) or None
        The same of the best epoch.
    n_processes : int
        Processes that trained together.
    """

    weights: dict
    optimizer: dict = field(default_factory=dict)
    best_weights: dict | None = None
    frozen: frozenset = frozenset()
    module_params: dict = field(default_factory=dict)
    history: list = field(default_factory=list)
    holdout_proba: np.ndarray | None = None
    best_holdout_proba: np.ndarray | None = None
    n_processes: int = 1

    @classmethod
    def of(cls, net, **known):
        """Record the state of an initialised net, without touching it."""
        optimizers = torch_attributes(net, torch.optim.Optimizer)
        modules = torch_attributes(net, torch.nn.Module)
        return cls(
            weights=snapshot(net),
            optimizer={k: _to_cpu(o.state_dict()) for k, o in optimizers.items()},
            frozen=frozenset(
                (attribute, name)
                for attribute, module in modules.items()
                for name, parameter in module.named_parameters()
                if not parameter.requires_grad
            ),
            history=[_plain(row) for row in net.history],
            **known,
        )

    def load_weights(self, net, *, best=False):
        """Put the weights into an initialised net of the same architecture."""
        weights = self.best_weights if best else self.weights
        for name, module in torch_attributes(net, torch.nn.Module).items():
            module.load_state_dict(weights[name])
            for parameter_name, parameter in module.named_parameters():
                frozen = (name, parameter_name) in self.frozen
                parameter.requires_grad_(not frozen)

    def load_optimizer(self, net, *, keep_moments=True):
        """Put learning rates, and if asked the moments, into a net's optimizers."""
        for name, optimizer in torch_attributes(net, torch.optim.Optimizer).items():
            if name not in self.optimizer:
                continue
            saved = self.optimizer[name]
            if keep_moments:
                # torch takes the tensors as they are, and steps would write to them.
                optimizer.load_state_dict(_to_cpu(saved))
            else:
                pairs = zip(optimizer.param_groups, saved["param_groups"], strict=True)
                for group, old in pairs:
                    group["lr"] = old["lr"]
