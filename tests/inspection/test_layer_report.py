import sys

import numpy as np
import pytest
import torch
from torch import nn

from masktune_sk.exceptions import NonFiniteError
from masktune_sk.inspection import _layer_report
from masktune_sk.inspection._layer_features import layer_features
from masktune_sk.inspection._layer_report import effective_rank, layer_report
from masktune_sk.modules import CifarResNet
from tests.nets import TinyConvNet, TinyMLP

N_BIAS = 3


def make_vectors(n=300, random_state=0):
    """Column 0 is the class (of 2), column 1 the bias (of 3), column 2 noise."""
    rng = np.random.default_rng(random_state)
    y, bias = rng.integers(0, 2, n), rng.integers(0, N_BIAS, n)
    X = np.column_stack([y, bias, np.zeros(n)]) + 0.1 * rng.normal(size=(n, 3))
    return X.astype(np.float32), y, bias


def select(*columns):
    """A linear layer that passes on some of the three columns."""
    layer = nn.Linear(3, len(columns))
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3)[list(columns)])
        layer.bias.zero_()
    return layer


def column(report, name, branch):
    columns = report.to_dict()
    pairs = zip(columns["branch"], columns[name], strict=True)
    return [value for own, value in pairs if own == branch]


def n_hooks(module):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()
    )


def test_rank_of_equal_directions_is_their_number():
    assert effective_rank(np.eye(7), center=False) == pytest.approx(7)
    # A centred matrix whose covariance is the identity.
    assert effective_rank(np.vstack([np.eye(7), -np.eye(7)])) == pytest.approx(7)
    # The centred identity lacks the direction of the mean.
    assert effective_rank(np.eye(7)) == pytest.approx(6)


def test_rank_of_one_direction_is_one():
    rng = np.random.default_rng(0)
    line = np.outer(rng.normal(size=50), rng.normal(size=8))
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(line + 5) == pytest.approx(1)


def test_rank_by_hand():
    # Singular values 3 and 1: p = 3/4 and 1/4.
    features = np.diag([3.0, 1.0])
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(features, center=False) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3])
def test_rank_of_constant_features_is_zero(value):
    assert effective_rank(np.full((101, 5), value)) == 0


def test_rank_is_invariant_to_rotation_translation_and_scale():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 6)) * np.arange(1, 7)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    rank = effective_rank(features)
    assert 1 < rank < 6
    for other in (features @ rotation, 1e-3 * features, features + 9, features[::-1]):
        assert effective_rank(other) == pytest.approx(rank)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_rank_refuses_what_is_no_matrix_of_numbers(odd):
    with pytest.raises(ValueError, match="features contains"):
        effective_rank([[1.0, odd], [0, 1]])
    with pytest.raises(ValueError, match="Expected 2D array"):
        effective_rank(np.ones(3))


def test_what_a_layer_drops_is_at_chance_and_what_it_keeps_is_decoded():
    X, y, bias = make_vectors()
    branches = {
        "core": nn.Sequential(select(0, 1, 2), select(0, 2)),
        "shortcut": nn.Sequential(select(0, 1, 2), select(1, 2)),
    }
    report = layer_report(branches, X, y, y * N_BIAS + bias, random_state=0)
    assert column(report, "layer", "core") == ["0", "1"]
    assert column(report, "depth", "core") == [1, 2]
    assert column(report, "width", "core") == [3, 2]
    assert column(report, "decodability_y", "core") == [1, 1]
    first, last = column(report, "decodability_bias", "core")
    assert first == 1
    assert last == pytest.approx(1 / N_BIAS, abs=0.1)
    first, last = column(report, "decodability_y", "shortcut")
    assert first == 1
    assert last == pytest.approx(1 / 2, abs=0.1)
    assert column(report, "decodability_bias", "shortcut") == [1, 1]
    assert report.chance == {"y": 1 / 2, "bias": pytest.approx(1 / 3)}
    ranks = column(report, "effective_rank", "core")
    assert ranks[0] == pytest.approx(effective_rank(X))
    assert ranks[1] == pytest.approx(effective_rank(X[:, [0, 2]]))


def test_y_is_not_decoded_by_way_of_a_bias_that_goes_with_it():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 1000)
    bias = np.where(rng.random(1000) < 0.1, 1 - y, y)
    X = np.column_stack([y, bias, rng.normal(size=1000)]).astype(np.float32)
    branches = {"shortcut": select(1, 2)}
    blind = layer_report(branches, X, y, random_state=0)
    assert blind.rows[0]["decodability_y"] == pytest.approx(0.9, abs=0.03)
    fair = layer_report(branches, X, y, 2 * y + bias, random_state=0)
    assert fair.rows[0]["decodability_y"] == pytest.approx(0.5, abs=0.06)
    assert fair.rows[0]["decodability_bias"] == 1


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["cat", "dog"]),
        np.array(["cat", "dog"], dtype=object),
        np.array([-1, 1]),
        np.array([3, 8]),
        np.array([0.0, 1.0]),
        np.array([False, True]),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int32, object])
def test_the_bias_is_taken_from_numbered_groups(labels, dtype):
    X, y, bias = make_vectors(n=60)
    groups = (y * N_BIAS + bias).astype(dtype)
    report = layer_report({"whole": select(0, 1, 2)}, X, labels[y], groups)
    assert report.chance == {"y": 1 / 2, "bias": pytest.approx(1 / 3)}


def test_the_bias_is_taken_where_a_class_does_not_occur():
    X, y, bias = make_vectors(n=60)
    y = 1 + 2 * y  # encoded labels 1 and 3 of 0..3
    report = layer_report({"whole": select(0, 1, 2)}, X, y, y * N_BIAS + bias)
    assert list(report.chance) == ["y", "bias"]


def test_other_groups_are_decoded_as_they_are():
    X, y, bias = make_vectors(n=90)
    for groups in (bias, np.array(["red", "green", "blue"])[bias], bias - 1):
        report = layer_report({"whole": select(0, 1, 2)}, X, y, groups)
        assert report.chance == {"y": 1 / 2, "groups": pytest.approx(1 / 3)}
        assert report.rows[0]["decodability_groups"] == 1


def test_a_group_of_one_sample_is_no_error():
    X, y, bias = make_vectors(n=60)
    bias[:] = 0
    bias[0] = 1
    report = layer_report({"whole": select(0, 1, 2)}, X, y, y * 2 + bias)
    assert 0 <= report.rows[0]["decodability_bias"] <= 0.5


def test_a_layer_ends_where_the_next_one_begins():
    torch.manual_seed(0)
    X = torch.randn(9, 1, 6, 6)
    net = TinyConvNet().eval()
    layers = layer_features(net, X, max_layers=9, batch_size=4)
    names = [layer.name for layer in layers]
    # The normalisation has weights, but no matrix of them.
    assert names == ["features.0", "features.3", "head"]
    with torch.no_grad():
        expected = [net.features[:3](X), net.features(X), net(X)[:, :, None, None]]
    for layer, output in zip(layers, expected, strict=True):
        np.testing.assert_allclose(
            layer.values, output.mean(dim=(2, 3)).numpy(), atol=1e-6
        )


def test_tokens_are_averaged_over_their_axis():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Flatten())
    X = torch.randn(8, 3, 4)
    (layer,) = layer_features(net, X, max_layers=9)
    # The last layer is what the module returns.
    np.testing.assert_allclose(layer.values, net(X).detach().numpy(), atol=1e-6)
    longer = nn.Sequential(*net, nn.Linear(15, 2))
    first, _ = layer_features(longer, X, max_layers=9)
    np.testing.assert_allclose(
        first.values, net[:2](X).mean(dim=1).detach().numpy(), atol=1e-6
    )


def test_a_module_without_weights_is_one_layer():
    X = torch.randn(8, 2, 3)
    (layer,) = layer_features(nn.Flatten(), X, max_layers=9)
    assert (layer.name, layer.depth) == ("Flatten", 1)
    np.testing.assert_array_equal(layer.values, X.flatten(1).numpy())


def test_a_module_that_is_one_layer_goes_by_its_class():
    (layer,) = layer_features(nn.Linear(3, 2), torch.randn(8, 3), max_layers=9)
    assert layer.name == "Linear"


class Pair(nn.Module):
    """Returns a tuple, and uses one layer twice, writing in place."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, X):
        once = self.layer(X).relu_()
        return self.layer(once), once


def test_of_a_tuple_the_first_counts_and_a_layer_may_run_twice():
    X = torch.randn(8, 3)
    module = Pair()
    first, second = layer_features(module, X, max_layers=9)
    output, _ = module(X)
    assert (first.depth, second.depth) == (1, 2)
    np.testing.assert_allclose(
        first.values, module.layer(X).detach().numpy(), atol=1e-6
    )
    np.testing.assert_allclose(second.values, output.detach().numpy(), atol=1e-6)


def test_many_layers_are_thinned_evenly():
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(11)))
    X = torch.randn(8, 3)
    layers = layer_features(net, X, max_layers=3)
    assert [layer.depth for layer in layers] == [1, 6, 11]
    assert len(layer_features(net, X, max_layers=99)) == 11
    assert [layer.depth for layer in layer_features(net, X, max_layers=1)] == [11]


def test_a_residual_net_is_followed_to_its_end():
    torch.manual_seed(0)
    net = CifarResNet(8, n_channels=1, n_classes=3).eval()
    X = torch.randn(12, 1, 16, 16)
    layers = layer_features(net, X, max_layers=99)
    assert len(layers) == 8
    assert [layer.values.shape[1] for layer in layers] == [16] * 3 + [32] * 2 + [
        64,
        64,
        3,
    ]
    np.testing.assert_allclose(layers[-1].values, net(X).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(fails):
    X, y, _ = make_vectors(n=40)
    module = nn.Sequential(
        nn.ReLU(inplace=True),
        TinyMLP(n_features=3),
        nn.BatchNorm1d(2),
        nn.Dropout(),
        nn.Linear(5 if fails else 2, 2),
    )
    module[1].eval()
    modes = [m.training for m in module.modules()]
    state = {key: value.clone() for key, value in module.state_dict().items()}
    tensor = torch.from_numpy(X.copy())
    global_state = torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            layer_report({"one": module}, tensor, y)
    else:
        layer_report({"one": module, "two": module}, tensor, y, random_state=0)
    assert n_hooks(module) == 0
    assert [m.training for m in module.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key])
    np.testing.assert_array_equal(tensor.numpy(), X)
    assert torch.equal(torch.get_rng_state(), global_state)


def test_the_same_seed_gives_the_same_numbers_of_arrays_and_tensors():
    X, y, bias = make_vectors()
    X.flags.writeable = False
    torch.manual_seed(0)
    branches = {"deep": TinyMLP(n_features=3)}
    given = {"max_samples": 50, "random_state": 3}
    report = layer_report(branches, X, y, bias, **given)
    again = layer_report(
        branches,
        torch.tensor(X, dtype=torch.float64),
        torch.tensor(y),
        torch.tensor(bias),
        **given,
    )
    assert report.n_samples == again.n_samples == 50
    assert report.to_dict() == again.to_dict()


def test_the_report_prints_as_an_aligned_table():
    X, y, _ = make_vectors(n=60)
    branches = {"shallow": select(0, 1, 2), "deep": nn.Sequential(select(0), nn.ReLU())}
    report = layer_report(branches, X, y, random_state=0)
    header, *rows, foot = repr(report).splitlines()
    assert header.startswith("branch   layer   depth  width  effective")
    assert header.endswith("effective rank  decodability y")
    assert len(rows) == len(report.rows) == 2
    assert len({len(line) for line in [header, *rows]}) == 1
    assert rows[1].split() == ["deep", "0", "1", "1", "1.00", "1.00"]
    assert foot == "60 samples; decodability of guessing: y 0.50"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branches": {}}, "branches must hold a module"),
        ({"max_layers": 0}, "max_layers must be at least 1; got 0"),
        ({"max_samples": 5}, "max_samples must be at least 6; got 5"),
        ({"y": np.arange(29) % 2}, "as many samples, 6 or more; got 30 and 29"),
        ({"X": np.ones((5, 3)), "y": np.arange(5) % 2}, "6 or more; got 5 and 5"),
        ({"y": np.ones(30)}, "y must hold two different values"),
        ({"y": np.linspace(0, 1, 30)}, "Unknown label type: continuous"),
        ({"groups": ["a"] * 30}, "groups must hold two different values"),
        ({"groups": np.arange(29)}, r"groups must have shape \(30,\)"),
        ({"groups": ["a"] * 29 + [None]}, "none missing"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = {
        "branches": {"whole": select(0, 1, 2)},
        "X": make_vectors(n=30)[0],
        "y": np.arange(30) % 2,
    }
    with pytest.raises(ValueError, match=message):
        layer_report(**given | change)


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, X):
        return self.make(X)


@pytest.mark.parametrize(
    ("make", "got"),
    [(torch.sum, r"got \(\)"), (lambda X: X[:2], r"got \(2, 3\)"), (str, "got str")],
    ids=["one number", "other rows", "no tensor"],
)
def test_a_module_that_returns_no_row_a_sample_is_refused(make, got):
    with pytest.raises(ValueError, match=f"Returns must return a tensor .* {got}"):
        layer_features(Returns(make), torch.randn(8, 3), max_layers=9)


def test_features_that_are_no_numbers_are_refused():
    X, y, _ = make_vectors(n=30)
    X[3, 1] = np.nan
    with pytest.raises(NonFiniteError, match="Layer 'Linear' of Linear returned NaN"):
        layer_report({"whole": select(0, 1, 2)}, X, y)


def test_a_class_of_which_one_sample_is_drawn_is_no_error():
    X, _, _ = make_vectors(n=12)
    y = (np.arange(12) == 0).astype(int)
    report = layer_report({"whole": select(0, 1, 2)}, X, y, random_state=0)
    assert report.rows[0]["decodability_y"] <= 0.5


@pytest.fixture(scope="module")
def report():
    X, y, bias = make_vectors(n=60)
    branches = {
        "shallow": select(0, 2),
        "deep": nn.Sequential(select(0, 1, 2), select(1, 2)),
    }
    return layer_report(branches, X, y, y * N_BIAS + bias, random_state=0)


@pytest.fixture
def plt():
    plt = pytest.importorskip("matplotlib.pyplot")
    yield plt
    plt.close("all")


@pytest.mark.usefixtures("plt")
def test_a_panel_a_number_and_a_line_a_branch(report):
    display = report.plot()
    assert display.axes_.shape == (3,)
    assert display.figure_ is display.axes_[0].figure
    assert list(display.lines_) == ["shallow", "deep"]
    names = "effective_rank", "decodability_y", "decodability_bias"
    for branch, lines in display.lines_.items():
        depth = column(report, "depth", branch)
        for line, axes, name in zip(lines, display.axes_, names, strict=True):
            assert line.axes is axes
            np.testing.assert_array_equal(line.get_xdata(), depth)
            np.testing.assert_array_equal(
                line.get_ydata(), column(report, name, branch)
            )
    heights = [axes.texts[0].get_position()[1] for axes in display.axes_[1:]]
    assert heights == list(report.chance.values())


def test_drawing_into_given_axes(report, plt):
    _, axes = plt.subplots(1, 3)
    display = report.plot(ax=axes)
    assert display.figure_ is axes[0].figure
    assert display.plot(ax=axes) is display
    with pytest.raises(ValueError, match=r"array of 3 Axes, .*\(y, bias\)"):
        report.plot(ax=axes[0])


def test_missing_matplotlib_names_the_extra(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"masktune_sk\[plot\]"):
        report.plot()


def test_the_probe_is_standardised():
    # A class in the column of the smallest scale, where a penalty would hide it.
    rng = np.random.default_rng(0)
    codes = np.arange(300) % 2
    features = np.column_stack([1e-6 * codes, rng.normal(size=300)])
    folds = np.arange(300) // 2 % 3
    assert _layer_report._decode(features, codes, codes, folds) == 1
