"""One layer of a module: which it is, its output as vectors, what comes after it."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import torch
from torch import fx, nn

from ..exceptions import TargetLayerError

__all__ = [
    "LatentLayer",
    "evaluating",
    "find_latent_layer",
    "isolate_head",
    "parameters_after",
    "passed_through",
]

# What these return is what came before them, coarser or unchanged.
NO_FEATURES = (
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.dropout._DropoutNd,
    nn.Identity,
)

# Of a sample: beyond that, a vector for each is more than memory should hold.
MOST_VALUES = 10_000


@dataclass(frozen=True)
class LatentLayer:
    """A layer whose output is corrected, and how it becomes one vector a sample.

    Parameters
    ----------
    name : str
        Dotted name in ``module.named_modules()``.
    shape : tuple of int
        Of its output for one sample.
    channel_axis : int
        Where the channels are in its output for a batch; the other axes but the first
        are positions.
    pool : {"max", "mean", "none"}
        How positions become one: the largest value of each channel, the mean, or not
        at all.
    """

    name: str
    shape: tuple
    channel_axis: int
    pool: str = "max"

    @property
    def n_channels(self):
        """Number of channels."""
        return self.shape[self.channel_axis - 1]

    @property
    def n_positions(self):
        """Number of positions, 1 for vectors."""
        return math.prod(self.shape) // self.n_channels

    @property
    def n_latents(self):
        """Length of the vector of a sample, which is that of a direction."""
        return math.prod(self.shape) if self.pool == "none" else self.n_channels

    def pooled(self, output):
        """Return one vector a sample.

        Parameters
        ----------
        output : torch.Tensor of shape (n_samples, ...)
            Of the layer.

        Returns
        -------
        latents : torch.Tensor of shape (n_samples, n_latents)
            Pooled over positions.
        """
        if self.pool == "none" or output.ndim == 2:
            return output.flatten(1)
        channels = output.movedim(self.channel_axis, 1).flatten(2)
        return channels.amax(dim=2) if self.pool == "max" else channels.mean(dim=2)

    def spread(self, vectors):
        """Bring vectors into the layout of the output, the same at every position.

        Parameters
        ----------
        vectors : torch.Tensor of shape (n_vectors, n_latents)
            Directions or shifts.

        Returns
        -------
        maps : torch.Tensor of shape (n_vectors, ...)
            To be broadcast against the output; a view.
        """
        if self.pool == "none":
            return vectors.reshape(-1, *self.shape)
        sizes = [1] * len(self.shape)
        sizes[self.channel_axis - 1] = self.n_channels
        return vectors.reshape(-1, *sizes)


@contextmanager
def evaluating(module):
    """Put a module in eval mode, and each of its parts back into its own.

    Parameters
    ----------
    module : torch.nn.Module
        Any.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def passed_through(layer, function, *, first=False):
    """Pass the output of a layer through a function, for the time of the context.

    Parameters
    ----------
    layer : torch.nn.Module
        The layer.
    function : callable
        From its output to what takes its place.
    first : bool, default=False
        Before other hooks of the layer, not after them.
    """
    handle = layer.register_forward_hook(
        lambda module, args, output: function(output), prepend=first
    )
    try:
        yield
    finally:
        handle.remove()


# ------------------------------------------------------------------ order of running


@dataclass
class _Call:
    """What a module did in a forward pass; times count starts and ends."""

    module: nn.Module
    starts: list = field(default_factory=list)
    ends: list = field(default_factory=list)
    output: object = None


def _trace(module, X):
    """Run a module in eval mode; return the calls of its parts, by name."""
    calls, clock, handles = {}, iter(range(10**9)), []

    def watch(name, part):
        def start(part, args, kwargs):
            calls.setdefault(name, _Call(part)).starts.append(next(clock))

        def end(part, args, output):
            calls[name].ends.append(next(clock))
            calls[name].output = output

        handles.append(part.register_forward_pre_hook(start, with_kwargs=True))
        handles.append(part.register_forward_hook(end))

    for name, part in module.named_modules():
        watch(name, part)
    try:
        with evaluating(module), torch.inference_mode(False), torch.enable_grad():
            module(X.clone())
    finally:
        for handle in handles:
            handle.remove()
    return calls


def find_latent_layer(module, X, name=None, pool="max"):
    """Find the layer to correct.

    Parameters
    ----------
    module : torch.nn.Module
        Unchanged.
    X : torch.Tensor of shape (n_samples, ...)
        A few samples, on the module's device.
    name : str, default=None
        Dotted name of the layer. None: of a net for images the last one, in the order
        in which layers finish, that has positions (a grid or tokens), is no pooling,
        and has parameters after it; of a net for vectors the one before the last linear
        layer.
    pool : {"auto", "max", "mean", "none"}, default="max"
        See `LatentLayer`. "auto": "none" where no convolution follows, each position
        is weighed by itself, and a sample has no more than 10,000 values there; else
        "max".

    Returns
    -------
    layer : LatentLayer
        The layer.

    Raises
    ------
    TargetLayerError
        If it does not exist, does not run exactly once in a forward pass, returns
        something else than one tensor with a row for each sample, or nothing can be
        found.
    """
    calls = _trace(module, X)
    if name is None:
        name = _default_layer(module, calls, X)
    else:
        _check_named(module, calls, name, len(X))
    output = calls[name].output
    shape, axis = tuple(output.shape[1:]), _channel_axis(output.shape, X.shape[2:])
    if pool != "auto":
        return LatentLayer(name, shape, axis, pool)
    layer = LatentLayer(name, shape, axis)
    last = calls[name].ends[-1]
    convolved = any(
        isinstance(call.module, nn.modules.conv._ConvNd) and call.starts[-1] > last
        for call in calls.values()
    )
    small = layer.n_positions > 1 and math.prod(shape) <= MOST_VALUES
    if small and not convolved and not _ignores_places(module, X, layer):
        return replace(layer, pool="none")
    return layer


def _ignores_places(module, X, layer):
    """Tell whether a net says the same of a layer's output turned upside down."""

    def turned(output):
        channels = output.movedim(layer.channel_axis, 1)
        positions = channels.flatten(2).flip(2)
        return positions.reshape(channels.shape).movedim(1, layer.channel_axis)

    with evaluating(module), torch.no_grad():
        expected = _first(module(X))
        with passed_through(module.get_submodule(layer.name), turned):
            found = _first(module(X))
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def _default_layer(module, calls, X):
    parts = {
        name: call
        for name, call in calls.items()
        if name and len(call.ends) == 1 and _has_rows(call.output, len(X))
    }
    last_start = max(
        call.starts[-1]
        for call in calls.values()
        if any(True for _ in call.module.parameters(recurse=False))
    )
    # Kept alive by the calls, so that no two have the same number.
    unwanted = {
        id(call.output)
        for call in parts.values()
        if isinstance(call.module, NO_FEATURES)
    }
    spatial = [
        name
        for name, call in parts.items()
        if call.output.ndim in (3, 4)
        and math.prod(call.output.shape[1:])
        > call.output.shape[_channel_axis(call.output.shape, X.shape[2:])]
        and id(call.output) not in unwanted
    ]
    linear = [c.starts[0] for c in parts.values() if isinstance(c.module, nn.Linear)]
    before = linear and max(linear)
    flat = [
        name
        for name, call in parts.items()
        if linear and call.output.ndim == 2 and call.ends[0] < before
    ]
    for names in (spatial, flat):
        names = [name for name in names if parts[name].ends[0] < last_start]
        if names:
            return max(names, key=lambda name: parts[name].ends[0])
    raise TargetLayerError(
        f"{type(module).__name__} has no hidden layer that runs once in a forward pass "
        "and has trainable layers after it, so there is nothing to correct. Name one "
        "as target_layer, or bring a net with a hidden layer."
    )


def _check_named(module, calls, name, n):
    names = [other for other, _ in module.named_modules() if other]
    if name not in names:
        near = get_close_matches(name, names, n=5, cutoff=0.4) or names[-5:]
        raise TargetLayerError(
            f"target_layer={name!r} is not a layer of {type(module).__name__}. Near "
            f"ones: {', '.join(map(repr, near)) or 'none'}. All are in "
            "dict(module.named_modules())."
        )
    n_runs = len(calls[name].ends) if name in calls else 0
    if n_runs != 1:
        raise TargetLayerError(
            f"target_layer={name!r} runs {n_runs} times in a forward pass; expected "
            "once. Name a layer that contains it, or another one."
        )
    output = calls[name].output
    if not _has_rows(output, n):
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
        raise TargetLayerError(
            f"target_layer={name!r} returns {got} for {n} samples; expected one tensor "
            "of 2 to 4 axes with a row for each sample. Name another layer."
        )


def _has_rows(output, n):
    return (
        isinstance(output, torch.Tensor)
        and 2 <= output.ndim <= 4
        and output.shape[0] == n
        and output.is_floating_point()
    )


def _channel_axis(shape, image):
    """Return the axis of channels: by which two axes are shaped as the image is."""
    if len(shape) < 4 or len(image) != 2:
        return 1 if len(shape) == 4 else len(shape) - 1
    _, a, b, c = shape
    aspect = math.log(image[0] / image[1])
    first, last = abs(math.log(b / c) - aspect), abs(math.log(a / b) - aspect)
    return 3 if last < first else 1


# ------------------------------------------------------------------ what comes after


def parameters_after(module, name, X):
    """Name the parameters that run after a layer, which a correction of it may train.

    Parameters
    ----------
    module : torch.nn.Module
        Unchanged.
    name : str
        Of the layer.
    X : torch.Tensor of shape (n_samples, ...)
        A few samples, on the module's device.

    Returns
    -------
    names : list of str
        In ``module.named_parameters()``. By the order of running, whatever the names;
        those that require no gradient are left out.

    Raises
    ------
    TargetLayerError
        If there are none.
    """
    calls = _trace(module, X)
    end = calls[name].ends[-1]
    before, unclear = set(), []
    for part_name, part in module.named_modules():
        running = part_name
        while running not in calls:
            # Its weights are used by the module around it, as in attention.
            running = running.rpartition(".")[0]
        call = calls[running]
        own = [p for p in part.parameters(recurse=False) if p.requires_grad]
        if call.starts[0] < end < call.ends[-1]:
            unclear += own
        elif call.starts[0] < end:
            before.update(map(id, own))
    output = calls[name].output
    if unclear and output.requires_grad:
        used = torch.autograd.grad(
            output.sum(), unclear, allow_unused=True, retain_graph=True
        )
        pairs = zip(unclear, used, strict=True)
        before.update(id(p) for p, gradient in pairs if gradient is not None)
    after = {
        parameter_name: parameter
        for parameter_name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in before
    }
    result = _first(calls[""].output)
    names = []
    if after and result.requires_grad:
        used = torch.autograd.grad(
            result.sum(), list(after.values()), allow_unused=True
        )
        pairs = zip(after, used, strict=True)
        names = [found for found, gradient in pairs if gradient is not None]
    if not names:
        raise TargetLayerError(
            f"No trainable parameters run after the layer {name!r}, so that nothing "
            "could unlearn what it shows. Name an earlier layer as target_layer."
        )
    return names


def isolate_head(module, name, X):
    """Split off what follows a layer, if nothing else of the module reaches it.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode.
    name : str
        Of the layer.
    X : torch.Tensor of shape (n_samples >= 2, ...)
        A few samples, on the module's device, to verify the split on.

    Returns
    -------
    head : torch.fx.GraphModule or None
        From the output of the layer to that of the module; its parameters are those of
        the module, under the same names. None if `torch.fx` can't follow the forward
        pass, a path leads around the layer, or the parts do not compute the same.
    """
    try:
        head = _head_of(module, name)
    except Exception:
        # Of code that can't be traced any error can come; the whole net is run then.
        return None
    if head is None:
        return None
    with torch.inference_mode(False), torch.no_grad():
        for rows in (X, X[:1]):
            latents = []

            def keep(output, latents=latents):
                latents.append(output.clone())

            with passed_through(module.get_submodule(name), keep):
                expected = _first(module(rows.clone()))
            try:
                got = _first(head(latents[0]))
            except Exception:
                return None
            if got.shape != expected.shape or not torch.allclose(
                got, expected, rtol=1e-4, atol=1e-5
            ):
                return None
    return head


class _Tracer(fx.Tracer):
    """Follow a forward pass, but not into one layer."""

    def __init__(self, leaf):
        super().__init__()
        self.leaf = leaf

    def is_leaf_module(self, m, module_qualified_name):
        return module_qualified_name == self.leaf or super().is_leaf_module(
            m, module_qualified_name
        )


def _head_of(module, name):
    graph = _Tracer(name).trace(module)
    calls = [n for n in graph.nodes if n.op == "call_module" and n.target == name]
    if len(calls) != 1:
        return None
    (layer,) = calls
    output = next(iter(reversed(graph.nodes)))
    needed, waiting = {layer, output}, [output]
    while waiting:
        for node in set(waiting.pop().all_input_nodes) - needed:
            if node.op == "placeholder":
                # The input is used behind the layer.
                return None
            needed.add(node)
            waiting.append(node)
    head = fx.Graph()
    copies = {layer: head.placeholder("latents")}
    for node in graph.nodes:
        if node in needed and node is not layer:
            copies[node] = head.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, head).eval()


def _first(output):
    return output[0] if isinstance(output, tuple) else output
