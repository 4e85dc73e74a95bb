"""What DeNetDM trains: two branches under one head, then a target beside them."""

import copy
from dataclasses import dataclass, field
from math import prod

import torch
from torch import nn

__all__ = [
    "Branch",
    "DepthPair",
    "Encoder",
    "EncoderPlan",
    "FrozenGuide",
    "GuidedTarget",
    "PackedGuide",
]


@dataclass(frozen=True)
class EncoderPlan:
    """How an encoder is made, so that nets of it can be cloned and stored.

    Attributes
    ----------
    build : type, callable or torch.nn.Module
        What makes the network; or such a network, which is copied.
    params : dict
        What to make it with.
    head : str or None
        Dotted name of the layer to cut off; None: it returns features.
    width : int
        Features it then has.
    feature_dim : int
        Features that are asked for.
    projection_bias : bool
        Of the linear layer that comes between, if these differ.
    """

    build: object
    params: dict = field(default_factory=dict)
    head: str | None = None
    width: int = 0
    feature_dim: int = 0
    projection_bias: bool = True

    def make(self):
        """Make the whole network.

        Returns
        -------
        module : torch.nn.Module
            New, with its last layer.
        """
        if isinstance(self.build, nn.Module) and not self.params:
            return copy.deepcopy(self.build)
        return self.build(**self.params)


class Encoder(nn.Module):
    """A network that returns features: a trunk, and a projection if need be.

    Parameters
    ----------
    plan : EncoderPlan
        How to make it.
    """

    def __init__(self, plan):
        super().__init__()
        self.trunk = plan.make()
        if plan.head is not None:
            self.trunk.set_submodule(plan.head, nn.Identity())
        self.projection = nn.Identity()
        if plan.width != plan.feature_dim:
            self.projection = nn.Linear(
                plan.width, plan.feature_dim, bias=plan.projection_bias
            )

    def forward(self, X):
        """Return features, (n_samples, feature_dim)."""
        return self.projection(self.trunk(X))


class DepthPair(nn.Module):
    """Two encoders whose features are added, under one linear head.

    Without a bias in the head, the softmax of what it returns is the product of the
    two experts that the head makes of the encoders alone, normalised.

    Parameters
    ----------
    shallow, deep : EncoderPlan
        Of the same `feature_dim`.
    n_classes : int
        Number of classes.
    head_bias : bool, default=True
        Whether the head has a bias.
    """

    def __init__(self, shallow, deep, n_classes, head_bias=True):
        super().__init__()
        self.shallow = Encoder(shallow)
        self.deep = Encoder(deep)
        self.head = nn.Linear(shallow.feature_dim, n_classes, bias=head_bias)

    def forward(self, X):
        """Return the logits of both together, (n_samples, n_classes)."""
        return self.head(self.shallow(X) + self.deep(X))


class Branch(nn.Module):
    """One encoder alone under the head.

    Parameters
    ----------
    plan : EncoderPlan
        Of the encoder.
    n_classes : int
        Number of classes.
    head_bias : bool, default=True
        Whether the head has a bias.
    """

    def __init__(self, plan, n_classes, head_bias=True):
        super().__init__()
        self.encoder = Encoder(plan)
        self.head = nn.Linear(plan.feature_dim, n_classes, bias=head_bias)

    def forward(self, X):
        """Return logits, (n_samples, n_classes), and features."""
        features = self.encoder(X)
        return self.head(features), features


class FrozenGuide(nn.Module):
    """The two branches as they accompany the target: without a gradient.

    Parameters
    ----------
    biased, debiased : Branch
        Trained; frozen here.
    freeze_norm : bool, default=True
        False: batch normalisation in the biased branch takes the statistics of the
        batch, and goes on averaging them, as in the official code.
    """

    def __init__(self, biased, debiased, freeze_norm=True):
        super().__init__()
        self.biased = biased
        self.debiased = debiased
        self.freeze_norm = freeze_norm
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode=True):
        """Set the mode, which the frozen parts do not follow."""
        super().train(mode)
        self.biased.train(mode and not self.freeze_norm)
        self.debiased.eval()
        return self

    @torch.no_grad()
    def forward(self, X):
        """Return the samples, features of the biased branch, logits of the other."""
        return X, self.biased(X)[1], self.debiased(X)[0]


class PackedGuide(nn.Module):
    """What a `FrozenGuide` returned, kept beside each sample in one vector.

    Parameters
    ----------
    item_shape : tuple of int
        Shape of one sample.
    feature_dim : int
        Features of the biased branch, which come after the sample; then the logits.
    """

    def __init__(self, item_shape, feature_dim):
        super().__init__()
        self.item_shape = tuple(item_shape)
        self.feature_dim = feature_dim

    def forward(self, X):
        """Return the samples, features of the biased branch, logits of the other."""
        n = prod(self.item_shape)
        X, features, logits = X.tensor_split((n, n + self.feature_dim), dim=1)
        return X.reshape(-1, *self.item_shape), features, logits


class GuidedTarget(nn.Module):
    """The target, trained beside a biased branch and after a debiased one.

    Parameters
    ----------
    plan : EncoderPlan
        Of the target.
    head : torch.nn.Linear
        That of the branches; the target starts with a copy.
    guide : FrozenGuide or PackedGuide
        What is known of each sample besides.
    """

    def __init__(self, plan, head, guide):
        super().__init__()
        self.encoder = Encoder(plan)
        self.head = copy.deepcopy(head).requires_grad_()
        self.guide = guide

    def forward(self, X):
        """Return logits: of the target, of it with the biased branch, of the teacher.

        Each of shape (n_samples, n_classes). The first ones are those that predict.
        """
        X, biased, teacher = self.guide(X)
        features = self.encoder(X)
        return self.head(features), self.head(features + biased), teacher

    @torch.no_grad()
    def folded(self, plan):
        """Return the weights of the target as its own network has them.

        The projection and the head are two linear layers, one after the other, so they
        are one.

        Parameters
        ----------
        plan : EncoderPlan
            The one that this was made with.

        Returns
        -------
        weights : dict of str to torch.Tensor
            A state dict of what ``plan.make()`` returns.
        """
        own = plan.make().get_submodule(plan.head)
        weight, bias = self.head.weight, self.head.bias
        if bias is None:
            bias = weight.new_zeros(len(weight))
        projection = self.encoder.projection
        if isinstance(projection, nn.Linear):
            if projection.bias is not None:
                bias = bias + weight @ projection.bias
            weight = weight @ projection.weight
        weights = dict(self.encoder.trunk.state_dict())
        weights[f"{plan.head}.weight"] = weight
        if own.bias is not None:
            weights[f"{plan.head}.bias"] = bias
        return {name: value.detach().clone() for name, value in weights.items()}
