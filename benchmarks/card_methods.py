"""What a card compares: its net, and each of its methods as an estimator."""

from functools import partial
from math import prod

import torch
from card import CardError
from depth_nets import branches_of, make_mlp, make_normalized
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn
from torchvision.transforms import v2

import masktune_sk
from masktune_sk import OFFICIAL_MASKTUNE
from masktune_sk.modules import published_net

__all__ = [
    "VARIANTS",
    "check_variants",
    "fit",
    "further_epochs",
    "make_classifier",
    "make_net",
    "named",
]

MASKTUNE, DENETDM, RRCLARC = (
    "MaskTuneClassifier",
    "DeNetDMClassifier",
    "RRClArCClassifier",
)
#: Name of a method: its estimator, and the parameters that make it what it is.
VARIANTS = {
    "ERM": (MASKTUNE, {"masking": "none", "refit_epochs": 0}),
    "ERM continued": (MASKTUNE, {"masking": "none"}),
    "random masks": (MASKTUNE, {"masking": "random"}),
    "MaskTune": (MASKTUNE, {}),
    "MaskTune, norm frozen": (MASKTUNE, {"freeze_norm": True}),
    "official recipe": (MASKTUNE, OFFICIAL_MASKTUNE),
    "DeNetDM": (DENETDM, {}),
    "DeNetDM, shallow branch": (DENETDM, {"predict_branch": "shallow"}),
    "fine-tuned": (RRCLARC, {"method": "none"}),
    "RR-ClArC": (RRCLARC, {}),
    "A-ClArC": (RRCLARC, {"method": "a-clarc"}),
    "P-ClArC": (RRCLARC, {"method": "p-clarc"}),
    "RRR": (RRCLARC, {"method": "rrr"}),
}
# What a method adds to ERM's epochs.
FURTHER = {
    MASKTUNE: "refit_epochs",
    DENETDM: "stage2_epochs",
    RRCLARC: "refit_epochs",
}
# Of the card's parameters, what holds for the other estimators too: the same samples.
SHARED = ("validation_fraction",)


def check_variants(card):
    """Refuse methods that are none.

    Raises
    ------
    CardError
        If the card names another estimator, or methods that are not in `VARIANTS`.
    """
    if card.method.estimator not in FURTHER:
        raise CardError(
            f"card {card.name}: the estimator must be one of {', '.join(FURTHER)}; got "
            f"{card.method.estimator!r}."
        )
    unknown = [name for name in card.method.variants if name not in VARIANTS]
    if unknown:
        raise CardError(
            f"card {card.name}: no variant is {', '.join(map(repr, unknown))}; there "
            f"is {', '.join(map(repr, VARIANTS))}."
        )


def named(tables, namespace):
    """Make an object of each table: the class of that name, with the other entries."""
    return [
        getattr(namespace, table["name"])(
            **{key: value for key, value in table.items() if key != "name"}
        )
        for table in tables
    ]


def make_net(card, train, *, home, device, n_workers=0):
    """Make the skorch net that a card describes."""
    training = card.training
    optimizer = dict(training.optimizer)
    params = {
        "optimizer": getattr(torch.optim, optimizer.pop("name")),
        **{f"optimizer__{key}": value for key, value in optimizer.items()},
        "lr": training.lr,
        "batch_size": training.batch_size,
        "max_epochs": training.epochs,
        "device": device,
        "iterator_train__num_workers": n_workers,
        "iterator_valid__num_workers": n_workers,
    }
    if training.schedule:
        schedule = dict(training.schedule)
        policy = LRScheduler(policy=schedule.pop("name"), **schedule)
        params["callbacks"] = [("schedule", policy)]
    n_classes = int(train.y.max()) + 1
    n_channels, *image_size = train.image_shape
    net = card.net
    if net["name"] == "MLP":
        return NeuralNetClassifier(
            partial(make_mlp, prod(train.image_shape), net["hidden"], n_classes),
            criterion=nn.CrossEntropyLoss,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
            **params,
        )
    if "normalize" in net:
        params |= {"module": make_normalized, "module__normalize": net["normalize"]}
    weights = net.get("weights", "none")
    return published_net(
        net["name"],
        n_classes,
        n_channels=n_channels,
        image_size=tuple(image_size),
        weights=None if weights == "none" else home / weights,
        **params,
    )


def make_classifier(card, method, net, *, image_shape, seed, memory):
    """Make one of the methods of a card.

    The card's parameters are those of its own estimator; others have their defaults,
    and the same hold-out.
    """
    name, variant = VARIANTS[method]
    parameters = card.method.parameters
    if name != card.method.estimator:
        parameters = {key: parameters[key] for key in SHARED if key in parameters}
    if method == "ERM continued":
        variant = variant | {"refit_epochs": further_epochs(card)}
    branches = {}
    if name == DENETDM and "shallow" in card.net:
        branches = branches_of(card.net, image_shape)
    augmentation = named(card.training.augmentation, v2)
    return getattr(masktune_sk, name)(
        net,
        augment=v2.Compose(augmentation) if augmentation else None,
        memory=memory,
        random_state=seed,
        **(branches | parameters | variant),
    )


def further_epochs(card):
    """Return how many epochs the card's estimator adds to those of ERM."""
    name = FURTHER[card.method.estimator]
    default = getattr(masktune_sk, card.method.estimator)().get_params()[name]
    epochs = card.method.parameters.get(name, default)
    return card.training.epochs if epochs is None else epochs


def fit(clf, train):
    """Fit a method, with what it takes of what is known of the training set."""
    known = {}
    if isinstance(clf, masktune_sk.RRClArCClassifier):
        known = {"concept": train.concept, "artifact_mask": train.artifact_mask}
    return clf.fit(train.X, train.y, **known)
