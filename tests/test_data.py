"""Tests of sources, batches and hold-outs."""

import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from masktune_sk.data import (
    ArraySource,
    BatchIterator,
    TorchView,
    stratified_holdout,
)

LAYOUTS = (
    "C",
    "F",
    "read-only",
    "negative strides",
    "strided",
    "transposed",
    "memmap",
    "big-endian",
)
DTYPES = ("float32", "float64", "float16", "uint8", "int64", "bool")
SIZES = [(n, size) for n in range(10) for size in (1, 2, 3, 4, 7, 100)]


def values(dtype="float32", shape=(7, 2, 3, 4)):
    """Return values that every dtype here holds exactly."""
    X = np.arange(math.prod(shape)).reshape(shape) % 97
    return (X % 2 == 1) if dtype == "bool" else X.astype(dtype)


def laid_out(X, layout, tmp_path):
    """Return the same values in another memory layout."""
    if layout == "C":
        return X
    if layout == "F":
        return np.asfortranarray(X)
    if layout == "read-only":
        X = X.copy()
        X.flags.writeable = False
        return X
    if layout == "negative strides":
        return X[::-1, ..., ::-1].copy()[::-1, ..., ::-1]
    if layout == "strided":
        return np.repeat(X, 2, axis=0)[::2]
    if layout == "transposed":
        return np.moveaxis(np.moveaxis(X, 1, -1).copy(), -1, 1)
    if layout == "memmap":
        np.save(tmp_path / "X.npy", X)
        return np.load(tmp_path / "X.npy", mmap_mode="r")
    return X.astype(X.dtype.newbyteorder(">"))


def labelled(n=10, n_classes=3):
    X = np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)
    return ArraySource(X, np.arange(n) % n_classes)


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_is_a_writable_float32_copy_of_any_array(layout, dtype, tmp_path):
    X = laid_out(values(dtype), layout, tmp_path)
    expected = np.array(X, dtype=np.float32)
    # In order, so that a view would have been possible; and in another order.
    for indices in (np.arange(7), np.array([5, 0, 5])):
        batch = ArraySource(X).batch(indices)
        assert batch.dtype == torch.float32
        assert batch.is_contiguous()
        np.testing.assert_array_equal(batch.numpy(), expected[indices])
        assert not np.shares_memory(batch.numpy(), X)
        batch.fill_(-1)
        np.testing.assert_array_equal(np.asarray(X, dtype=np.float32), expected)


def test_a_source_knows_length_shape_and_labels():
    labels = np.array([0, 1, 0, 1, 0, 1, 0])
    source = ArraySource(values(), labels)
    assert len(source) == 7
    assert source.item_shape == (2, 3, 4)
    assert source.labels is labels
    assert ArraySource(values()).labels is None


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_read_all_samples_in_order(size):
    X = values()
    indices, rows = zip(*ArraySource(X).batches(size), strict=True)
    np.testing.assert_array_equal(np.concatenate(indices), np.arange(7))
    np.testing.assert_array_equal(torch.cat(rows).numpy(), X)
    assert [len(i) for i in indices] == [len(r) for r in rows]
    assert max(len(i) for i in indices) == min(size, 7)


def test_a_take_of_a_take_is_the_take_of_both():
    X, labels = values(), np.arange(7) % 3
    first, second = np.array([6, 2, 2, 0, 5]), [4, 1, 0]
    taken = ArraySource(X, labels).take(first).take(second)
    chosen = first[second]
    assert len(taken) == 3
    assert taken.item_shape == (2, 3, 4)
    np.testing.assert_array_equal(taken.labels, labels[chosen])
    np.testing.assert_array_equal(taken.batch(np.arange(3)).numpy(), X[chosen])
    np.testing.assert_array_equal(
        taken.batch(np.array([2, 0])).numpy(), X[chosen[[2, 0]]]
    )
    assert ArraySource(X).take(first).labels is None


def test_a_taken_batch_can_be_written_to():
    X = values()
    ArraySource(X).take(np.arange(7)).batch(np.arange(7)).fill_(-1)
    np.testing.assert_array_equal(X, values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_fingerprint_does_not_depend_on_layout_or_dtype(layout, dtype, tmp_path):
    X, labels = values(dtype), np.arange(7) % 3
    plain = ArraySource(X.astype(np.float32), labels).fingerprint()
    X = laid_out(X, layout, tmp_path)
    for integer in (np.int32, np.int64):
        assert ArraySource(X, labels.astype(integer)).fingerprint() == plain
    strided_labels = np.repeat(labels, 2)[::2]
    assert ArraySource(X, strided_labels).fingerprint() == plain


def test_the_fingerprint_of_a_take_is_that_of_the_rows():
    X, labels, rows = values(), np.arange(7) % 3, np.array([3, 1, 6])
    taken = ArraySource(X, labels).take(rows)
    assert taken.fingerprint() == ArraySource(X[rows], labels[rows]).fingerprint()


def test_the_fingerprint_changes_with_what_training_sees():
    X, labels = values(), np.arange(7) % 3
    another_value = X.copy()
    another_value[3, 1, 2, 3] += 1e-5 * another_value[3, 1, 2, 3]
    another_label = labels.copy()
    another_label[4] = (another_label[4] + 1) % 3
    sources = [
        ArraySource(X, labels),
        ArraySource(X),
        ArraySource(another_value, labels),
        ArraySource(X[::-1], labels),
        ArraySource(X, another_label),
        ArraySource(X, labels[::-1]),
        ArraySource(X[:6], labels[:6]),
        # The same bytes in another shape.
        ArraySource(X.reshape(7, 3, 2, 4), labels),
        ArraySource(X.reshape(7, 24), labels),
    ]
    assert len({source.fingerprint() for source in sources}) == len(sources)


def test_the_fingerprint_sees_every_row_of_many():
    X = np.zeros((9000, 1), dtype=np.float32)
    prints = {ArraySource(X).fingerprint()}
    for row in (0, 4095, 4096, 8999):
        changed = X.copy()
        changed[row] = 1
        prints.add(ArraySource(changed).fingerprint())
    assert len(prints) == 5


# ---------------------------------------------------------------- torch view


def test_a_view_gives_single_samples_as_torch_expects_them():
    view = TorchView(labelled())
    x, y = view[3]
    np.testing.assert_array_equal(x, [6, 7])
    assert (int(y), y.dtype) == (0, torch.int64)
    np.testing.assert_array_equal(view[-1][0], [18, 19])
    np.testing.assert_array_equal(view[-10][0], [0, 1])
    assert len(view) == 10
    assert view.shape == (10, 2)
    assert TorchView(ArraySource(values())).shape == (7, 2, 3, 4)


def test_without_labels_every_label_is_zero():
    view = TorchView(ArraySource(values()))
    _, y = view.read(np.arange(7))
    np.testing.assert_array_equal(y, np.zeros(7))
    assert y.dtype == torch.int64
    assert int(view[2][1]) == 0


@pytest.mark.parametrize("index", [10, -11, 500])
def test_a_sampler_for_other_rows_gets_a_helpful_error(index):
    view = TorchView(labelled())
    with pytest.raises(IndexError, match="has 10 rows.*set validation_fraction=0"):
        view[index]
    with pytest.raises(IndexError, match=f"Row {index} was asked for"):
        list(DataLoader(view, sampler=[0, index]))


def test_augment_is_applied_to_each_sample_and_not_to_the_data():
    X, shapes = values(), []

    def less_mean(x):
        shapes.append(tuple(x.shape))
        return x.sub_(x.mean())

    view = TorchView(ArraySource(X), augment=less_mean)
    read, _ = view.read(np.array([4, 0]))
    assert shapes == [(2, 3, 4)] * 2
    expected = X[[4, 0]] - X[[4, 0]].mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(read, expected, rtol=1e-6)
    np.testing.assert_array_equal(view[4][0], read[0])
    np.testing.assert_array_equal(X, values())


# ---------------------------------------------------------------- iterator


def sizes_of(iterator):
    return [len(y) for _, y in iterator]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("n", "size"), SIZES)
def test_an_epoch_reads_what_its_length_says(n, size, shuffle, drop_last):
    view = TorchView(labelled(n))
    iterator = BatchIterator(view, size, shuffle=shuffle, drop_last=drop_last)
    sizes = sizes_of(iterator)
    assert len(iterator) == len(sizes)
    rows = [int(x[0]) // 2 for X, _ in iterator for x in X]
    assert len(set(rows)) == len(rows) == sum(sizes)
    if drop_last:
        assert sizes == [size] * (n // size)
    else:
        assert sorted(rows) == list(range(n))
        assert 1 not in sizes or size == 1 or n == 1
        assert max(sizes, default=0) <= size + (n % size == 1)
    if not shuffle:
        assert rows == list(range(len(rows)))


def test_a_last_batch_of_one_joins_the_one_before():
    view = TorchView(labelled(9))
    assert sizes_of(BatchIterator(view, 4)) == [4, 5]
    assert sizes_of(BatchIterator(view, 8)) == [9]
    assert sizes_of(BatchIterator(view, 8, drop_last=True)) == [8]
    assert sizes_of(BatchIterator(view, 1)) == [1] * 9
    assert sizes_of(BatchIterator(TorchView(labelled(1)), 4)) == [1]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    ("n", "size"), [(n, size) for n, size in SIZES if n % size != 1 or size == 1]
)
def test_unshuffled_batches_equal_those_of_a_data_loader(n, size, drop_last):
    view = TorchView(labelled(n), augment=lambda x: 2 * x)
    ours = BatchIterator(view, size, drop_last=drop_last)
    theirs = DataLoader(view, size, drop_last=drop_last)
    assert len(ours) == len(theirs)
    for (X, y), (X_theirs, y_theirs) in zip(ours, theirs, strict=True):
        assert (X.dtype, y.dtype) == (X_theirs.dtype, y_theirs.dtype)
        assert torch.equal(X, X_theirs)
        assert torch.equal(y, y_theirs)


def test_only_shuffling_draws_from_torchs_generator():
    view = TorchView(labelled())
    before = torch.get_rng_state()
    list(BatchIterator(view, 4))
    len(BatchIterator(view, 4, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)
    list(BatchIterator(view, 4, shuffle=True))
    assert not torch.equal(torch.get_rng_state(), before)


def test_shuffling_is_a_new_permutation_each_epoch_and_seeded():
    iterator = BatchIterator(TorchView(labelled()), 4, shuffle=True)

    def orders(seed):
        torch.manual_seed(seed)
        return [[int(x[0]) // 2 for X, _ in iterator for x in X] for _ in range(2)]

    first, second = orders(0)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert orders(0) == [first, second]
    assert orders(1)[0] != first
    torch.manual_seed(0)
    assert first == torch.randperm(10).tolist()


def test_labels_travel_with_their_rows():
    for X, y in BatchIterator(TorchView(labelled()), 3, shuffle=True):
        np.testing.assert_array_equal(X[:, 0] // 2 % 3, y)


class OtherLoader(DataLoader):
    pass


@pytest.mark.parametrize(
    ("loader", "params", "replaceable"),
    [
        (DataLoader, (), True),
        (DataLoader, ("batch_size", "shuffle", "drop_last"), True),
        (DataLoader, ("num_workers",), False),
        (DataLoader, ("batch_size", "sampler"), False),
        (OtherLoader, (), False),
        (BatchIterator, (), False),
    ],
)
def test_only_a_plain_data_loader_is_replaced(loader, params, replaceable):
    assert BatchIterator.can_replace(loader, dict.fromkeys(params)) is replaceable


# ---------------------------------------------------------------- hold-out


def random_labels(rng):
    """Return labels of 2 to 8 classes, some of them with very few samples."""
    counts = rng.choice([2, 3, 5, 20, 60], size=rng.integers(2, 9))
    return rng.permutation(np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("seed", range(60))
def test_a_holdout_of_any_class_distribution_is_fair(seed):
    rng = np.random.default_rng(seed)
    labels = random_labels(rng)
    fraction = rng.choice([0.01, 0.1, 0.2, 0.25, 0.5, 0.75, 0.9])
    train, holdout = stratified_holdout(
        labels, fraction, np.random.RandomState(seed), classes=None
    )
    n, counts = len(labels), np.bincount(labels)
    n_classes = len(counts)
    wanted = max(n_classes, math.ceil(round(fraction * n, 6)))
    # At least one of each class stays to train on.
    assert len(holdout) == min(wanted, n - n_classes)
    both = np.concatenate([train, holdout])
    assert sorted(both) == list(range(n))
    assert sorted(train) == train.tolist()
    assert sorted(holdout) == holdout.tolist()
    shares = np.bincount(labels[holdout], minlength=n_classes)
    assert (shares >= 1).all()
    assert (shares < counts).all()
    # In proportion, as far as one row of each class on either side allows.
    ideal = counts * len(holdout) / n
    if ((ideal >= 1) & (ideal <= counts - 1)).all():
        assert (np.abs(shares - ideal) < 1).all()


def test_a_holdout_is_exactly_proportional_where_that_is_possible():
    labels = np.repeat([0, 1, 2], [10, 20, 70])
    _, holdout = stratified_holdout(labels, 0.2, np.random.RandomState(0))
    np.testing.assert_array_equal(np.bincount(labels[holdout]), [2, 4, 14])


@pytest.mark.parametrize(
    ("n", "fraction", "size"),
    [(30, 0.1, 3), (100, 0.07, 7), (10, 0.21, 3), (100, 0.001, 2), (11, 0.5, 6)],
)
def test_the_size_of_a_holdout_is_rounded_up_but_not_by_rounding_errors(
    n, fraction, size
):
    labels = np.arange(n) % 2
    _, holdout = stratified_holdout(labels, fraction, np.random.RandomState(0))
    assert len(holdout) == size


def test_a_rare_class_is_on_both_sides():
    labels = np.repeat([0, 1], [1000, 2])
    train, holdout = stratified_holdout(labels, 0.2, np.random.RandomState(0))
    assert np.bincount(labels[train])[1] == 1
    assert np.bincount(labels[holdout])[1] == 1
    assert len(holdout) == 201


def test_a_holdout_is_seeded_and_draws_from_nothing_else():
    labels = np.arange(60) % 3
    before = np.random.get_state()  # noqa: NPY002
    first = stratified_holdout(labels, 0.3, np.random.RandomState(0))
    again = stratified_holdout(labels, 0.3, np.random.RandomState(0))
    other = stratified_holdout(labels, 0.3, np.random.RandomState(1))
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1].tolist() != other[1].tolist()
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_a_fraction_of_zero_holds_nothing_out_and_draws_nothing():
    labels = np.array([0, 1, 1, 1])  # a class with a single sample is fine here
    random = np.random.RandomState(0)
    train, holdout = stratified_holdout(labels, 0, random)
    np.testing.assert_array_equal(train, np.arange(4))
    assert (len(holdout), holdout.dtype.kind) == (0, "i")
    assert random.randint(1000) == np.random.RandomState(0).randint(1000)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (np.array(["ant", "bee", "cat"]), "class bee has 1"),
        (None, "class 1 has 1"),
    ],
)
def test_a_class_with_one_sample_is_named_with_the_way_out(classes, words):
    labels = np.array([0, 0, 1, 2, 2])
    with pytest.raises(ValueError, match=rf"{words}.*validation_fraction=0 "):
        stratified_holdout(labels, 0.2, np.random.RandomState(0), classes=classes)
    with pytest.raises(ValueError, match=r"validation_fraction=0.2 needs at least 2"):
        stratified_holdout(labels, 0.2, np.random.RandomState(0), classes=classes)
