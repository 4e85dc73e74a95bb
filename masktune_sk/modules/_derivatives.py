"""How logits change when the output of a layer moves along directions."""

import warnings
from functools import cache

import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["as_logits", "choose_mode", "directional_derivatives"]


def as_logits(output, log_proba):
    """Return logits of what a module returned.

    Parameters
    ----------
    output : torch.Tensor of shape (n_samples, n_classes), or tuple with it first
        What the module returned.
    log_proba : bool
        It is probabilities (skorch's `NLLLoss`), whose logarithm is taken.

    Returns
    -------
    logits : torch.Tensor of shape (n_samples, n_classes)
        Logits.
    """
    output = output[0] if isinstance(output, tuple) else output
    return torch.log(output + torch.finfo(output.dtype).eps) if log_proba else output


def directional_derivatives(run, directions, mode="forward"):
    """Compute logits, and their derivatives along each direction.

    Of all classes at once: ``d_k = d/de logit_k(a + e direction)`` at ``e = 0``, by one
    forward-mode derivative [1]_ for each direction. Gradients of the weights go through
    the derivatives as well.

    Parameters
    ----------
    run : callable
        ``run(shift) -> logits`` passes the output of the layer through ``shift`` once,
        and returns logits of shape (n_samples, n_classes). Samples must not depend on
        each other.
    directions : torch.Tensor of shape (n_directions, ...)
        To be broadcast against the output of the layer.
    mode : {"forward", "reverse"}, default="forward"
        "reverse" takes the same derivatives by two backward passes, for operations
        that have no forward mode.

    Returns
    -------
    logits : torch.Tensor of shape (n_samples, n_classes)
        As without any shift.
    derivatives : torch.Tensor of shape (n_samples, n_directions, n_classes)
        Without a graph where gradients are off.

    References
    ----------
    .. [1] Baydin, Pearlmutter, Radul, Siskind, "Automatic Differentiation in Machine
       Learning: a Survey", JMLR 18, 2018.
    """
    keep = torch.is_grad_enabled()
    compute = _forward if mode == "forward" else _reverse
    # With gradients on, attention takes no fast path that has no derivative; and of its
    # kernels only this one has the second derivative.
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        logits, derivatives = compute(run, directions)
    return (logits, derivatives) if keep else (logits.detach(), derivatives.detach())


@cache
def _load_forward_mode():
    """Let torch load its rules for forward mode, by parts of its own it deprecates."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore")
        forward_ad.make_dual(torch.zeros(1), torch.ones(1))


def _forward(run, directions):
    _load_forward_mode()
    columns = []
    for direction in directions:
        with forward_ad.dual_level():

            def shift(output, direction=direction):
                # A layout as that of the output: what follows may write in place.
                tangent = torch.empty_like(output).copy_(direction)
                return forward_ad.make_dual(output.clone(), tangent)

            logits, tangent = forward_ad.unpack_dual(run(shift))
            columns.append(torch.zeros_like(logits) if tangent is None else tangent)
    return logits, torch.stack(columns, dim=1)


def _reverse(run, directions):
    """Take vector-Jacobian products, and their derivatives by the vector."""
    steps = []

    def shift(output):
        step = output.new_zeros(
            len(directions), len(output), *[1] * (output.ndim - 1), requires_grad=True
        )
        steps.append(step)
        along = directions.to(output.dtype)[:, None]
        return output + (step * along).sum(dim=0)

    logits = run(shift)
    vector = torch.zeros_like(logits, requires_grad=True)
    products = _grad(logits, steps[0], vector)
    columns = [_grad(product.sum(), vector) for product in products]
    return logits, torch.stack(columns, dim=1)


def _grad(output, source, vector=None):
    if not output.requires_grad:
        return torch.zeros_like(source)
    (gradient,) = torch.autograd.grad(
        output, source, vector, create_graph=True, allow_unused=True
    )
    return torch.zeros_like(source) if gradient is None else gradient


def choose_mode(run, directions, parameters=()):
    """Choose how derivatives are computed: forward mode where all operations have it.

    Parameters
    ----------
    run : callable
        As for `directional_derivatives`.
    directions : torch.Tensor of shape (n_directions, ...)
        Directions.
    parameters : iterable of torch.Tensor, default=()
        What gradients of the derivatives are to be taken by: some operations have a
        forward mode that has no backward.

    Returns
    -------
    mode : {"forward", "reverse"}
        For `directional_derivatives`.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        with torch.enable_grad():
            _, derivatives = directional_derivatives(run, directions[:1])
            if parameters and derivatives.requires_grad:
                torch.autograd.grad(
                    derivatives.square().sum(), parameters, allow_unused=True
                )
    except (NotImplementedError, RuntimeError):
        return "reverse"
    return "forward"
