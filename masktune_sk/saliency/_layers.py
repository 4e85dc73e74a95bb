"""Which layer to explain: found by the order in which layers run."""

import math
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import nn

from ..exceptions import TargetLayerError
from ._recorder import class_scores, looking_inside

__all__ = ["Layer", "find_layer"]

# The coarsest maps of the MaskTune paper are 7 x 7. On a much coarser one no spot
# stands out by two standard deviations, and nothing would be masked.
FINE_ENOUGH = 7
CHANNELS_FIRST = nn.Conv2d | nn.BatchNorm2d | nn.MaxPool2d | nn.AvgPool2d
# A class token, a distillation token and up to four registers stand before the grid.
MOST_PREFIX_TOKENS = 6


@dataclass(frozen=True)
class Layer:
    """A layer whose output has a place in the image for each position.

    Parameters
    ----------
    name : str
        Dotted name in ``module.named_modules()``.
    layout : {"channels_first", "channels_last", "tokens"}
        Where the channels are.
    grid : tuple of int (height, width)
        Number of positions.
    signed : bool
        Whether the output has negative values (no rectifier before it).
    """

    name: str
    layout: str
    grid: tuple
    signed: bool = False

    def to_grid(self, tensor):
        """Bring an output, or its gradient, to channels first.

        Parameters
        ----------
        tensor : torch.Tensor
            In the layer's own layout.

        Returns
        -------
        tensor : torch.Tensor of shape (n_samples, n_channels, height, width)
            A view of it; tokens before the grid are left out.
        """
        if self.layout == "channels_first":
            return tensor
        if self.layout == "channels_last":
            return tensor.permute(0, 3, 1, 2)
        positions = self.grid[0] * self.grid[1]
        tokens = tensor[:, tensor.shape[1] - positions :]
        return tokens.transpose(1, 2).unflatten(2, self.grid)


def find_layer(net, X, name=None):
    """Find the layer to explain.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialised net.
    X : torch.Tensor of shape (n_samples, n_channels, height, width)
        A few images to run it on.
    name : str, default=None
        Dotted name of the layer. None: the last one, in the order in which layers
        finish, with a spatial output of 7 x 7 positions or more (half the image's size,
        for images below 14 pixels) at which the predicted class has a gradient: under a
        class token, the last block's output has none. Where no layer is that fine, as
        for a small image in a net made for large ones, the finest grid there is.

    Returns
    -------
    layer : Layer or None
        None if no name is given and no layer has a spatial output.

    Raises
    ------
    TargetLayerError
        If the named layer does not exist, never runs, or has no spatial output.
    """
    if name is not None:
        _check_exists(net.module_, name)
    with looking_inside(net):
        # A copy of a leaf of our own: the net may write into what it is given.
        X = X.detach().to(net.device).clone().requires_grad_().clone()
        outputs, result = _trace(net, X)
        layers = _spatial_layers(net.module_, outputs, X.shape)
        if name is not None:
            return _named_layer(name, outputs, layers)
        layers = _fine_enough(layers, X.shape[2:])
        if not layers:
            return None
        scores = class_scores(net, result)
        # Parts that a module runs without gradients can't be explained.
        reached = [layer for layer in layers if outputs[layer.name].requires_grad]
        if not (reached and scores.requires_grad):
            return layers[-1]
        gradients = torch.autograd.grad(
            scores.sum(), [outputs[layer.name] for layer in reached], allow_unused=True
        )
    for layer, gradient in zip(reversed(reached), reversed(gradients), strict=True):
        if gradient is not None and layer.to_grid(gradient).any():
            return layer
    return layers[-1]


def _trace(net, X):
    """Run a net; return each module's last output, in the order of running."""
    outputs = {}

    def record(name):
        def hook(module, args, output):
            outputs.pop(name, None)
            outputs[name] = output
            # A copy goes on, as in LayerRecorder: what follows may write in place.
            return output.clone() if isinstance(output, torch.Tensor) else None

        return hook

    handles = [
        module.register_forward_hook(record(name))
        for name, module in net.module_.named_modules()
        if name
    ]
    try:
        result = net.infer(X)
    finally:
        for handle in handles:
            handle.remove()
    return outputs, result


def _spatial_layers(module, outputs, input_shape):
    """Return the layers with a spatial output, in the order of running."""
    n, _, *image = input_shape
    tensors = {
        name: output
        for name, output in outputs.items()
        if isinstance(output, torch.Tensor) and output.shape[:1] == (n,)
    }
    # Of these the layout is known; of others with the same shape too.
    convolved = {
        tensor.shape
        for name, tensor in tensors.items()
        if isinstance(module.get_submodule(name), CHANNELS_FIRST)
    }
    grids = [_grid_of_4d(t.shape, image) for t in tensors.values() if t.ndim == 4]
    token_grids = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 3:
            grid = _grid_of_tokens(tensor.shape[1], [g for _, g in grids], image)
            if grid is not None:
                token_grids[name] = grid
    lengths = {tensors[name].shape[1] for name in token_grids}
    layers = []
    for name, tensor in tensors.items():
        if name in token_grids:
            found = "tokens", token_grids[name]
        elif tensor.shape in convolved:
            found = "channels_first", tensor.shape[2:]
        # An axis of tokens: attention weights, or the keys of each head.
        elif tensor.ndim == 4 and lengths.isdisjoint(tensor.shape[1:3]):
            found = _grid_of_4d(tensor.shape, image)
        else:
            continue
        layout, grid = found
        if 1 < grid[0] * grid[1] and grid[0] <= image[0] and grid[1] <= image[1]:
            signed = bool((tensor.detach() < 0).any())
            layers.append(Layer(name, layout, tuple(grid), signed))
    return layers


def _fine_enough(layers, image):
    """Keep the layers whose grid is fine enough, or else the finest."""
    if not layers:
        return layers
    wanted = [min(FINE_ENOUGH, -(-side // 2)) for side in image]
    finest = max((layer.grid for layer in layers), key=math.prod)
    wanted = [min(pair) for pair in zip(wanted, finest, strict=True)]
    return [
        layer
        for layer in layers
        if layer.grid[0] >= wanted[0] and layer.grid[1] >= wanted[1]
    ]


def _grid_of_4d(shape, image):
    """Tell channels-first from channels-last by which two axes are shaped alike."""
    _, a, b, c = shape
    aspect = math.log(image[0] / image[1])
    first, last = abs(math.log(b / c) - aspect), abs(math.log(a / b) - aspect)
    if last < first:
        return "channels_last", (a, b)
    return "channels_first", (b, c)


def _grid_of_tokens(length, grids, image):
    """Find the grid of a token sequence: one seen before it, or a square."""
    for height, width in reversed(grids):
        if 1 < height * width and 0 <= length - height * width <= MOST_PREFIX_TOKENS:
            return height, width
    if image[0] == image[1]:
        for prefix in (0, 1, 2):
            side = math.isqrt(max(length - prefix, 0))
            if side > 1 and side * side == length - prefix:
                return side, side
    return None


def _check_exists(module, name):
    names = [other for other, _ in module.named_modules() if other]
    if name in names:
        return
    near = get_close_matches(name, names, n=5, cutoff=0.4) or names[-5:]
    raise TargetLayerError(
        f"target_layer={name!r} is not a layer of {type(module).__name__}. Near ones: "
        f"{', '.join(map(repr, near)) or 'none'}. All are in "
        "dict(module.named_modules())."
    )


def _named_layer(name, outputs, layers):
    if name not in outputs:
        ran = ", ".join(repr(layer.name) for layer in layers[-5:]) or "none"
        raise TargetLayerError(
            f"target_layer={name!r} never runs in a forward pass (its module is not "
            f"called). Layers with a spatial output that do run, the last ones: {ran}."
        )
    for layer in layers:
        if layer.name == name:
            return layer
    output = outputs[name]
    kind = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
    near = ", ".join(repr(layer.name) for layer in layers[-5:]) or "none"
    raise TargetLayerError(
        f"target_layer={name!r} has no spatial output: it returns {kind}, expected "
        "(n, channels, height, width), (n, height, width, channels) or the tokens of a "
        f"grid. Layers that have one, the last ones: {near}."
    )
