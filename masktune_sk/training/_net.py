"""From what the user gave to nets of our own: clones, made and filled."""

from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.dataset import ValidSplit
from torch import nn

from ..data import TorchView, worker_errors
from ..exceptions import NonFiniteError
from ..modules import default_net
from ._precision import channels_last, computing, fused_params, sums_of_one
from ._processes import use_locally
from ._runner import batch_iterators, iterator_params, reads_whole_batches
from ._seed import seeded
from ._state import snapshot, torch_attributes

__all__ = [
    "build_net",
    "check_output",
    "check_trains",
    "finite_rows",
    "forward",
    "has_own_split",
    "predict_proba",
    "resolve_net",
]


def resolve_net(estimator, input_shape, n_classes):
    """Turn the `estimator` parameter into a net to clone from.

    Parameters
    ----------
    estimator : skorch.NeuralNetClassifier, FrozenEstimator around one, or None
        What the user gave.
    input_shape : tuple of int
        Shape of one sample.
    n_classes : int
        Number of classes.

    Returns
    -------
    template : skorch.NeuralNetClassifier
        An unfitted clone; the user's object is never touched.
    fitted : skorch.NeuralNetClassifier or None
        The net inside a `FrozenEstimator`, to be read only; inside an estimator of
        ours there, the one that predicts.

    Raises
    ------
    TypeError
        If it is no `NeuralNetClassifier`.
    ValueError
        If a module instance comes with module parameters, a frozen net can't be
        trained further, or an accelerator does more than train copies of the net.
    sklearn.exceptions.NotFittedError
        If a frozen net is not fitted.
    """
    if estimator is None:
        return default_net(input_shape, n_classes), None
    frozen = isinstance(estimator, FrozenEstimator)
    net = estimator.estimator if frozen else estimator
    if frozen and hasattr(net, "_fit_stages"):
        # An estimator of ours stands for the net that predicts.
        if not hasattr(net, "net_"):
            raise NotFittedError(
                f"FrozenEstimator skips the first training, but the "
                f"{type(net).__name__} inside is not fitted. Fit it first."
            )
        net = net.net_
    if not isinstance(net, NeuralNetClassifier):
        got = (
            f"the class {net.__name__}"
            if isinstance(net, type)
            else f"an object of type {type(net).__name__}"
        )
        raise TypeError(
            "estimator must be a skorch.NeuralNetClassifier, FrozenEstimator(net) "
            f"around a fitted one, or None for a default net; got {got}. Wrap a torch "
            "module as NeuralNetClassifier(module, "
            "criterion=torch.nn.CrossEntropyLoss); for two classes too, with two "
            "outputs."
        )
    if isinstance(net.module, nn.Module) and net.get_params_for("module"):
        raise ValueError(
            "The estimator's module is an instance and comes with module__ parameters "
            f"{sorted(net.get_params_for('module'))}: skorch would build a new module "
            "and drop the instance's weights. Give the class with its parameters, or "
            "the instance alone."
        )
    if not frozen:
        return use_locally(clone(net)), None
    if not net.initialized_:
        raise NotFittedError(
            "FrozenEstimator skips the first training, but the net inside is not "
            "fitted. Fit it first, or pass the net itself."
        )
    if getattr(net, "_wrapped_with_accelerator", False):
        raise ValueError(
            "The net inside FrozenEstimator is still wrapped by its Accelerator. Train "
            "it with unwrap_after_train=True, the default."
        )
    if net.criterion is None:
        raise ValueError(
            "The net inside FrozenEstimator was trimmed for prediction and can't be "
            "trained any more. Freeze it before trim_for_prediction()."
        )
    return use_locally(clone(net)), net


def build_net(template, state=None, *, best=False, precision="float32"):
    """Clone and initialise a net, and fill it with a trained state if there is one.

    Parameters
    ----------
    template : skorch.NeuralNetClassifier
        The unfitted net.
    state : TrainedState, default=None
        Weights to put in.
    best : bool, default=False
        Take the weights of the best epoch, not those of the last.
    precision : {"float32", "bf16"}, default="float32"
        In "bf16" the optimizer steps in one kernel where it can.

    Returns
    -------
    net : skorch.NeuralNetClassifier
        Initialised, in eval mode.
    """
    net = clone(template)
    if state is not None and state.module_params:
        net.set_params(**state.module_params)
    if precision == "bf16":
        net.set_params(**fused_params(net))
    # Weights that are overwritten anyway shall cost no random numbers.
    with nullcontext() if state is None else seeded(0):
        net.initialize()
    if precision == "bf16":
        channels_last(net)
    if hasattr(net, "accelerator"):
        # A net that says it is wrapped can't be cloned, and ours never are.
        net._wrapped_with_accelerator = False
    if state is not None:
        state.load_weights(net, best=best)
    for module in torch_attributes(net, nn.Module).values():
        module.eval()
    return net


def has_own_split(net):
    """Tell whether the user set a `train_split`, other than skorch's default."""
    split = net.train_split
    default = isinstance(split, ValidSplit) and split.cv == 5 and split.stratified
    return split is not None and not default


def predict_proba(net, dataset, precision="float32"):
    """Return a net's probabilities for a dataset, read in whole batches.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net.
    dataset : TorchView
        The samples.
    precision : {"float32", "bf16"}, default="float32"
        See `computing`.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes), float32
        One row a sample.
    """
    with _reading(net, precision):
        return sums_of_one(net.predict_proba(dataset), precision)


def forward(net, dataset, part=0, precision="float32"):
    """Return one of the outputs of a net whose module has several.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialised net. Its module returns a tuple.
    dataset : TorchView
        The samples.
    part : int, default=0
        Which output.
    precision : {"float32", "bf16"}, default="float32"
        See `computing`.

    Returns
    -------
    output : ndarray of shape (n_samples, ...), float32
        One row a sample.
    """
    with _reading(net, precision):
        batches = net.forward_iter(dataset, training=False)
        return np.concatenate([outputs[part].numpy() for outputs in batches])


def finite_rows(proba):
    """Refuse probabilities that are none.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities, or logits.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes)
        The same.

    Raises
    ------
    NonFiniteError
        If any is NaN or infinite.
    """
    if not np.isfinite(proba).all():
        raise NonFiniteError(
            f"{(~np.isfinite(proba).all(axis=1)).sum()} of {len(proba)} rows of "
            "probabilities are NaN or infinite. Is X scaled as the training data?"
        )
    return proba


@contextmanager
def _reading(net, precision):
    """Read whole batches where the user left skorch's default loaders."""
    n_workers = iterator_params(net, training=False).get("num_workers", 0)
    with (
        batch_iterators(net),
        computing(net, precision),
        worker_errors("prediction", n_workers),
    ):
        yield


def check_output(net, source, n_classes, precision="float32"):
    """Refuse a net that can't take the samples or does not return probabilities.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net.
    source : Source
        A few samples.
    n_classes : int
        Number of classes in y.
    precision : {"float32", "bf16"}, default="float32"
        See `computing`.

    Raises
    ------
    ValueError
        If the forward pass fails, has another number of outputs than there are classes,
        or `predict_proba` does not give (finite) probabilities.
    """
    name = type(net.module_).__name__
    try:
        proba = predict_proba(net, TorchView(source), precision)
    except (
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        AssertionError,
    ) as error:
        shape = source.item_shape
        hint = ""
        if len(shape) == 3 and shape[-1] in (1, 3, 4):
            hint = (
                " Channels come before height and width; if they are last in X, pass "
                "X.transpose(0, 3, 1, 2)."
            )
        raise ValueError(
            f"{name} can't take samples of shape {shape} (each without the batch "
            f"axis): {error}.{hint}"
        ) from error
    if proba.ndim != 2 or proba.shape[1] != n_classes:
        raise ValueError(
            f"{name} returns {proba.shape[1:]} outputs a sample, but y has {n_classes} "
            f"classes; expected ({n_classes},). Change the last layer, or pass a y "
            "with all the classes the net was made for."
        )
    if not np.isfinite(proba).all():
        raise ValueError(
            f"{name} gives NaN or infinite probabilities before any training here. "
            "Are its weights finite, and is the input scaled?"
        )
    if not np.allclose(proba.sum(axis=1), 1, atol=1e-3) or (proba < 0).any():
        raise ValueError(
            f"predict_proba of the net around {name} gives rows like {proba[0]}, which "
            "are no probabilities. If the module returns logits, set "
            "criterion=torch.nn.CrossEntropyLoss (skorch's default, NLLLoss, takes "
            "probabilities); with a criterion of your own, set "
            "predict_nonlinearity=functools.partial(torch.softmax, dim=-1)."
        )


def check_trains(net, X, n_rows):
    """Refuse a training batch of one under batch normalisation.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net; unchanged.
    X : torch.Tensor of shape (>=1, ...)
        Some samples.
    n_rows : int
        Number of training rows.

    Raises
    ------
    ValueError
        If an epoch would hold a batch of one that the module can't train on.
    """
    params = iterator_params(net, training=True)
    size = params["batch_size"]
    ours = reads_whole_batches(net, training=True)
    left_over = not (ours or params.get("drop_last")) and n_rows % size == 1
    if not (n_rows == 1 or size == 1 or left_over):
        return
    weights = snapshot(net)
    module = net.module_.train()
    try:
        with torch.no_grad():
            net.infer(X[:1])
    except ValueError as error:
        raise ValueError(
            f"A training batch would hold one sample ({n_rows} training rows, "
            f"batch_size={size}), which this module can't train on: {error} Set "
            "another batch_size, or iterator_train__drop_last=True."
        ) from error
    finally:
        module.load_state_dict(weights["module_"])
        module.eval()
