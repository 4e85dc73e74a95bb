"""The same work in plain torch, written by hand: what the package is measured against.

Nothing here checks, reports or configures anything. It is what one would write for a
single net and a single array, and so about as fast as torch allows in float32.
"""

import torch
from torch.nn import functional as F


def sgd(parameters):
    """Return the optimizer of the MaskTune paper's small network."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)


def train(
    make_module,
    X,
    y,
    X_valid,
    y_valid,
    *,
    epochs,
    seed,
    batch_size=128,
    make_optimizer=sgd,
    bf16=False,
):
    """Train, with a pass over the validation set after each epoch.

    With `bf16`, under autocast and with channels last: what torch users do for speed.
    Returns the module and the accuracy of the last validation pass.
    """
    torch.manual_seed(seed)
    X, y, X_valid, y_valid = map(torch.from_numpy, (X, y, X_valid, y_valid))
    module = make_module()
    if bf16 and X.ndim == 4:
        module = module.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(module.parameters())
    accuracy = None
    for _ in range(epochs):
        module.train()
        for rows in torch.randperm(len(X)).split(batch_size):
            batch = X[rows]
            if bf16 and X.ndim == 4:
                batch = batch.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(module(batch), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy = evaluate(module, X_valid, y_valid, batch_size, bf16=bf16)[1]
    return module, accuracy


@torch.no_grad()
def evaluate(module, X, y, batch_size=128, *, bf16=False):
    """Return mean loss and accuracy."""
    module.eval()
    loss, correct = 0.0, 0
    for batch, labels in zip(X.split(batch_size), y.split(batch_size), strict=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = module(batch)
            loss += F.cross_entropy(output, labels, reduction="sum").item()
        correct += (output.argmax(1) == labels).sum().item()
    return loss / len(X), correct / len(X)


def look(stem, head, X, batch_size=128):
    """Do the least work that any gradient-based map of a layer needs.

    A forward pass without a graph up to the layer (`stem`), and the gradient of the
    predicted class with respect to the layer's output through what follows (`head`).
    No map is made of them.
    """
    for batch in torch.from_numpy(X).split(batch_size):
        with torch.no_grad():
            activations = stem(batch)
        activations.requires_grad_()
        scores = head(activations).amax(1)
        torch.autograd.grad(scores.sum(), activations)


def halves(module, layer=None):
    """Cut a net in two at the layer that is explained: `stem` and `head` of `look`.

    For a `SmallConvNet`, or a ResNet of torchvision cut behind one of its layers. The
    parameters get no gradient from then on, and the net is in eval mode.
    """
    module.eval().requires_grad_(False)
    if hasattr(module, "features"):

        def head(activations):
            pooled = F.adaptive_avg_pool2d(F.max_pool2d(activations, 2), module.grid)
            return module.head(pooled.flatten(1))

        return module.features, head
    children = dict(module.named_children())
    names = list(children)
    cut = names.index(layer) + 1
    after = [children[name] for name in names[cut:]]
    after.insert(-1, torch.nn.Flatten())
    return (
        torch.nn.Sequential(*(children[name] for name in names[:cut])),
        torch.nn.Sequential(*after),
    )
