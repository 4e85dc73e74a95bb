"""Weights from a local file, checked before a module takes them."""

import hashlib
from pathlib import Path
from textwrap import shorten

import torch
from torch import nn

from .._optional import import_optional

__all__ = ["file_sha256", "load_weights"]

# Of another architecture hundreds of entries differ.
MOST_LINES, LONGEST_LINE = 8, 300


def file_sha256(path):
    """Hash the content of a file.

    Parameters
    ----------
    path : str or path
        An existing file.

    Returns
    -------
    digest : str
        64 hexadecimal digits.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_weights(module, path, *, name, sha256=None):
    """Put the weights of a file into a module.

    The last linear layer keeps its own, new weights if those of the file have another
    shape, as for another number of classes, or if the file has none. Everything else
    must match by name and shape.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    path : str or path
        An existing file: ``.safetensors``, or else a state dict that was saved by
        ``torch.save``, which is read without running code of the file.
    name : str
        Of the architecture, for messages.
    sha256 : str, default=None
        What the content must hash to; None: anything.

    Raises
    ------
    ValueError
        If the file has another hash, can't be read, holds no state dict, or one that
        does not fit.
    ImportError
        If a ``.safetensors`` file is given, and the package is not installed.
    """
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise ValueError(
            f"The weights in {path} are not those that this net was made with: sha256 "
            f"{sha256[:12]}... was expected, {found[:12]}... found. Make the net again "
            "with published_net. To search over files, search over such nets: "
            "{'estimator': [published_net(...), ...]}."
        )
    state = _read(path)
    linear = [item for item in module.named_modules() if isinstance(item[1], nn.Linear)]
    head, layer = linear[-1]
    own = {f"{head}.{key}": value for key, value in layer.state_dict().items()}
    if any(key not in state or state[key].shape != own[key].shape for key in own):
        state.update(own)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        _, *lines = str(error).split("\n\t")
        listed = [shorten(line, LONGEST_LINE, placeholder=" ...") for line in lines]
        if len(lines) > MOST_LINES:
            listed[MOST_LINES:] = [f"and {len(lines) - MOST_LINES} more"]
        raise ValueError(
            f"The weights in {path} do not fit {name}. Only the last layer may have "
            "another shape, for another number of classes. Are they of another "
            "architecture, for another n_channels, or for a transformer of another "
            "image_size? (torchvision.models.vision_transformer.interpolate_embeddings "
            "changes that size.)\n- " + "\n- ".join(listed)
        ) from error


def _read(path):
    """Return the state dict that a file holds."""
    try:
        if Path(path).suffix == ".safetensors":
            package = import_optional(
                "safetensors.torch", caller=f"Reading {path}", extra="safetensors"
            )
            return package.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:
        # Of a damaged file any error can come.
        raise ValueError(
            f"Can't read weights from {path}: {type(error).__name__}, "
            f"{shorten(str(error), LONGEST_LINE, placeholder=' ...')} Expected what "
            "torch.save(module.state_dict(), path) writes, or a .safetensors file. Is "
            "the file whole? A pickled module is not read, as that runs its code."
        ) from error
    if not isinstance(state, dict):
        found = f"an object of type {type(state).__name__}"
    elif not all(
        isinstance(key, str) and isinstance(value, torch.Tensor)
        for key, value in state.items()
    ):
        found = "a dict with the keys " + ", ".join(map(repr, list(state)[:6]))
    else:
        return state
    raise ValueError(
        f"{path} holds {shorten(found, LONGEST_LINE, placeholder=' ...')}, expected a "
        "state dict: tensors by name. Of a checkpoint, save the entry with the weights "
        "alone."
    )
