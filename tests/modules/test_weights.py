"""Tests of weights from a local file."""

import hashlib
import sys
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from masktune_sk.modules import CifarResNet, published_module
from masktune_sk.modules._weights import file_sha256, load_weights


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def resnet(n_classes=10, **params):
    return CifarResNet(8, n_classes=n_classes, **params)


def test_the_hash_is_that_of_the_content(path):
    path.write_bytes(b"weights")
    assert file_sha256(path) == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("legacy", [False, True])
def test_all_weights_are_taken_where_all_fit(path, legacy):
    saved, module = resnet(), resnet()
    saved(torch.rand(4, 3, 8, 8))  # for the statistics
    torch.save(saved.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    load_weights(module, path, name="resnet8", sha256=file_sha256(path))
    for name, value in module.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name])
    X = torch.rand(2, 3, 8, 8)
    assert torch.equal(module.eval()(X), saved.eval()(X))
    # It has weights of its own, which train.
    module.conv1.weight.data.zero_()
    assert torch.load(path)["conv1.weight"].any()
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("n_classes", [2, 11])
def test_the_head_stays_new_for_another_number_of_classes(path, n_classes):
    saved, module = resnet(), resnet(n_classes)
    head = {k: v.clone() for k, v in module.fc.state_dict().items()}
    torch.save(saved.state_dict(), path)
    load_weights(module, path, name="resnet8")
    for name, value in head.items():
        assert torch.equal(module.fc.state_dict()[name], value)
    assert torch.equal(module.layer3[0].conv1.weight, saved.layer3[0].conv1.weight)


def test_weights_without_a_head_do(path):
    state = {k: v for k, v in resnet().state_dict().items() if not k.startswith("fc.")}
    torch.save(state, path)
    module = resnet()
    head = module.fc.weight.clone()
    load_weights(module, path, name="resnet8")
    assert torch.equal(module.conv1.weight, state["conv1.weight"])
    assert torch.equal(module.fc.weight, head)


def test_old_weights_without_counts_of_batches_do(path):
    state = resnet().state_dict()
    old = OrderedDict((k, v) for k, v in state.items() if "num_batches" not in k)
    torch.save(old, path)
    module = resnet()
    load_weights(module, path, name="resnet8")
    assert torch.equal(module.bn1.weight, state["bn1.weight"])


def test_safetensors(tmp_path):
    path = tmp_path / "weights.safetensors"
    saved = resnet()
    save_file(saved.state_dict(), path)
    module = resnet(3)
    load_weights(module, path, name="resnet8")
    assert torch.equal(module.conv1.weight, saved.conv1.weight)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="Can't read .*safetensors: .* file whole"):
        load_weights(module, path, name="resnet8")


def test_safetensors_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    path = tmp_path / "weights.safetensors"
    path.touch()
    with pytest.raises(ImportError, match=r"needs safetensors, .*sk\[safetensors\]"):
        load_weights(resnet(), path, name="resnet8")


def test_other_weights_than_expected(path):
    torch.save(resnet().state_dict(), path)
    found = file_sha256(path)
    message = (
        f"are not those .* {'0' * 12}... was expected, {found[:12]}... found. Make"
    )
    with pytest.raises(ValueError, match=message):
        load_weights(resnet(), path, name="resnet8", sha256="0" * 64)


def test_what_does_not_fit_is_listed(path):
    state = resnet().state_dict()
    state["extra"] = state.pop("bn1.weight")
    state["layer2.0.conv2.weight"] = torch.zeros(1, 2)
    torch.save(state, path)
    with pytest.raises(ValueError, match="do not fit resnet8. Only the last") as caught:
        load_weights(resnet(2), path, name="resnet8")
    _, *listed = str(caught.value).split("\n- ")
    assert len(listed) == 3
    assert "Missing" in listed[0]
    assert '"bn1.weight"' in listed[0]
    assert "Unexpected" in listed[1]
    assert '"extra"' in listed[1]
    assert "layer2.0.conv2.weight" in listed[2]
    assert "[1, 2]" in listed[2]
    assert "fc" not in " ".join(listed)


def test_the_list_is_short_for_another_architecture(path):
    torch.save(CifarResNet(32).state_dict(), path)
    with pytest.raises(ValueError, match="Unexpected key.* ...") as caught:
        load_weights(resnet(), path, name="resnet8")
    assert len(str(caught.value)) < 1000
    torch.save({k: v[None] for k, v in resnet().state_dict().items()}, path)
    with pytest.raises(ValueError, match=r"size mismatch.*\n- and \d+ more$") as caught:
        load_weights(resnet(), path, name="resnet8")
    assert len(str(caught.value)) < 4000


def test_other_channels_do_not_fit(path):
    torch.save(resnet().state_dict(), path)
    with pytest.raises(ValueError, match=r"n_channels, .*\n- size .*conv1.weight"):
        load_weights(resnet(n_channels=1), path, name="resnet8")


class Harm(nn.Module):
    """Stands for a module of which the class would run."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Harm(), "Can't read weights from .* A pickled module is not read"),
        (
            {"epoch": 3, "state_dict": {"a": torch.zeros(1)}},
            "a dict with the keys 'epoch', 'state_dict', expected a state dict: .* Of "
            "a checkpoint, save the entry",
        ),
        ({0: torch.zeros(1)}, "a dict with the keys 0, expected a state dict"),
        ([torch.zeros(1)], "an object of type list, expected a state dict"),
        (torch.zeros(1), "an object of type Tensor, expected a state dict"),
    ],
)
def test_a_file_of_something_else(path, content, message):
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        load_weights(resnet(), path, name="resnet8")


@pytest.mark.parametrize("damage", [b"", b"<html>not found</html>", "half"])
def test_a_damaged_file(path, damage):
    torch.save(resnet().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
    with pytest.raises(ValueError, match="Can't read weights .* Is the file whole?"):
        load_weights(resnet(), path, name="resnet8")


@pytest.mark.slow
def test_a_transformer_takes_the_names_of_the_published_file(path):
    saved = published_module("vit_b_16", 2, image_size=32)
    # Its file was written when torchvision called the layers so.
    legacy = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    state = {}
    for name, value in saved.state_dict().items():
        for new, old in legacy.items():
            name = name.replace(new, old)
        state[name] = value
    torch.save(state, path)
    module = published_module("vit_b_16", 3, image_size=32, weights=path)
    block = "encoder.layers.encoder_layer_11.mlp.3.weight"
    assert torch.equal(module.get_parameter(block), saved.get_parameter(block))
    message = r"interpolate_embeddings changes.*\n- size mismatch .*pos_embedding"
    with pytest.raises(ValueError, match=message):
        published_module("vit_b_16", 3, image_size=48, weights=path)
