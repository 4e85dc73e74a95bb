"""Modules around a net's module: with an edited layer, and for a correction of it."""

import copy

import torch
from torch import nn

from ._derivatives import as_logits, choose_mode, directional_derivatives
from ._latent import passed_through

__all__ = ["EditedModule", "LatentEdit", "PartlyFrozen", "RefitModule"]


class LatentEdit(nn.Module):
    """Move each sample along concept directions, to given scores.

    What P-ClArC and A-ClArC [1]_ do to the output ``a`` of a layer. With directions
    ``h_j`` and scores ``s_j = h_j . pool(a)``, the same ``sum_j gamma_j h_j`` is added
    at every position, so that the new scores are ``z_j`` exactly: ``gamma`` solves
    ``(H H^T) gamma = z - s``. Applied twice it changes nothing more.

    Parameters
    ----------
    layer : LatentLayer
        The layer.
    directions : array-like of shape (n_concepts, n_latents)
        The directions, linearly independent.
    scores : array-like of shape (n_concepts,)
        Where samples are moved to: the mean score of clean samples removes the
        artifact (P-ClArC), that of artifact samples adds it (A-ClArC).
    thresholds : array-like of shape (n_concepts,), default=None
        Only samples with a score above are moved (reactive P-ClArC [2]_); None: all.

    References
    ----------
    .. [1] Anders et al., "Finding and removing Clever Hans: Using explanation methods
       to debug and improve deep models", Information Fusion 77, 2022.
    .. [2] Bareeva, Dreyer, Pahde, Samek, Lapuschkin, "Reactive Model Correction:
       Mitigating Harm to Task-Relevant Features via Conditional Bias Suppression",
       CVPR Workshops 2024.
    """

    def __init__(self, layer, directions, scores, thresholds=None):
        super().__init__()
        self.layer = layer
        directions = torch.as_tensor(directions, dtype=torch.float64)
        if thresholds is None:
            thresholds = [-torch.inf] * len(directions)
        values = {
            "directions": directions,
            "inverse": torch.linalg.pinv(directions @ directions.T),
            "scores": scores,
            "thresholds": thresholds,
        }
        for name, value in values.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))

    def forward(self, output):
        """Edit the output of the layer.

        Parameters
        ----------
        output : torch.Tensor of shape (n_samples, ...)
            Of the layer; unchanged.

        Returns
        -------
        output : torch.Tensor of the same shape
            The edited one.
        """
        directions = self.directions.to(output.dtype)
        scores = self.layer.pooled(output) @ directions.T
        missing = torch.where(scores > self.thresholds, self.scores - scores, 0)
        shift = missing.to(output.dtype) @ self.inverse.to(output.dtype) @ directions
        return output + self.layer.spread(shift)

    def as_hook(self, module, args, output):
        """Edit the output of the module that this is a forward hook of."""
        return self(output)


class EditedModule(nn.Module):
    """A module with an edit of one layer that is part of it.

    The edit is kept by `pickle`, `copy.deepcopy`, ``state_dict`` and, as it is made
    from parameters alone, by whatever builds a module of the same parameters.

    Parameters
    ----------
    module : torch.nn.Module or callable that returns one
        An instance is copied.
    layer : LatentLayer
        The layer.
    directions, scores, thresholds : array-like
        See `LatentEdit`.
    **params : dict
        For the callable.
    """

    def __init__(self, module, layer, directions, scores, thresholds=None, **params):
        super().__init__()
        is_made = isinstance(module, nn.Module)
        self.module = copy.deepcopy(module) if is_made else module(**params)
        self.edit = LatentEdit(layer, directions, scores, thresholds)
        self.module.get_submodule(layer.name).register_forward_hook(self.edit.as_hook)

    def forward(self, *args, **kwargs):
        """Run the module.

        Parameters
        ----------
        *args, **kwargs : object
            For the module.

        Returns
        -------
        output : object
            What the module returns.
        """
        return self.module(*args, **kwargs)


class PartlyFrozen(nn.Module):
    """A module of which some parameters train, in eval mode all the time.

    Parameters
    ----------
    module : torch.nn.Module
        Kept in eval mode: no dropout, and batch normalisation by its running
        statistics, which stay as they are.
    trainable : collection of str
        Which of its parameters train; the others get no gradient.
    """

    def __init__(self, module, trainable):
        super().__init__()
        self.module = module.eval()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in trainable)

    def train(self, mode=True):
        """Set the mode of this wrapper alone.

        Parameters
        ----------
        mode : bool, default=True
            Training mode.

        Returns
        -------
        self : object
            This module.
        """
        super().train(mode)
        self.module.eval()
        return self


class RefitModule(PartlyFrozen):
    """A module for the training that corrects a layer.

    Parameters
    ----------
    module : torch.nn.Module
        The whole, or what follows the layer.
    trainable : collection of str
        Which of its parameters train.
    layer : LatentLayer
        The layer.
    from_latents : bool
        The module follows the layer, and takes its output.
    log_proba : bool
        It returns probabilities, see `as_logits`.
    directions : array-like of shape (n_concepts, n_latents), default=None
        Derivatives of the logits along these are returned too.
    edit : LatentEdit, default=None
        Applied to the output of the layer.
    mode : {"forward", "reverse"}, default="forward"
        See `directional_derivatives`.
    """

    def __init__(
        self,
        module,
        trainable,
        layer,
        *,
        from_latents,
        log_proba,
        directions=None,
        edit=None,
        mode="forward",
    ):
        super().__init__(module, trainable)
        self.layer = layer
        self.from_latents = from_latents
        self.log_proba = log_proba
        self.edit = edit
        self.mode = mode
        if directions is not None:
            directions = torch.as_tensor(directions, dtype=torch.float32)
        self.register_buffer("directions", directions)

    def choose_mode(self, X):
        """Take forward mode if everything after the layer has it.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, ...)
            A few samples, on the module's device.
        """
        directions = self.layer.spread(self.directions)
        self.mode = choose_mode(
            lambda shift: self._run(X, shift), directions, self.parameters()
        )

    def forward(self, X):
        """Return logits, and derivatives if there are directions.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, ...)
            Samples, or the output of the layer for them.

        Returns
        -------
        logits : torch.Tensor of shape (n_samples, n_classes)
            Logits.
        derivatives : torch.Tensor of shape (n_samples, n_concepts, n_classes)
            Only with directions.
        """
        if self.directions is None:
            return self._run(X, None)
        return directional_derivatives(
            lambda shift: self._run(X, shift),
            self.layer.spread(self.directions),
            self.mode,
        )

    def _run(self, X, shift):
        steps = [step for step in (self.edit, shift) if step is not None]

        def change(output):
            for step in steps:
                output = step(output)
            return output

        if self.from_latents:
            # What follows the layer may write in place, into the batch.
            output = self.module(change(X) if steps else X.clone())
        else:
            with passed_through(self.module.get_submodule(self.layer.name), change):
                output = self.module(X)
        return as_logits(output, self.log_proba)
