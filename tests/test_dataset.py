"""Tests of torch datasets, memory-mapped files and views of them as X."""

import gc
import os
import pickle
import random
import re
import tracemalloc
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from numpy.lib.format import open_memmap
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    train_test_split,
)
from skorch.callbacks import Callback, EpochScoring
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    get_worker_info,
)
from torchvision.transforms import v2

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import (
    ArraySource,
    DatasetSource,
    DatasetView,
    TorchView,
    as_array,
    as_source,
)
from masktune_sk.exceptions import RandomDatasetWarning
from tests.nets import TinyConvNet, TinyMLP, tiny_images, tiny_net, tiny_vectors


class Rows(Dataset):
    """Samples and labels of the user's own, and which samples were read."""

    def __init__(self, X, y, targets=None):
        self.X, self.y, self.read = X, y, []
        if targets is not None:
            self.targets = targets

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        self.read.append(i)
        return self.X[i], self.y[i]


class WithTransform(Rows):
    """As datasets of torchvision are: what `targets` holds is transformed later."""

    def __init__(self, X, y, target_transform=None, transform=None):
        super().__init__(X, y, targets=y)
        self.target_transform = target_transform
        self.transform = transform

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        x = x if self.transform is None else self.transform(x)
        return x, y if self.target_transform is None else self.target_transform(y)


class OnlyX(Rows):
    def __init__(self, X):
        super().__init__(X, None)

    def __getitem__(self, i):
        self.read.append(i)
        return self.X[i]


class NeverTrain(Callback):
    def on_batch_begin(self, net, **kwargs):
        raise AssertionError("trained")


def images(n=40):
    """Images of whole numbers, which every dtype holds."""
    X, y = tiny_images(n=n, size=8)
    return np.round(X * 100).clip(0, 255), y


def vectors(n=40):
    X, y = tiny_vectors(n=n)
    return np.round(X * 10), y


def classifier(module=TinyConvNet, *, callbacks=None, **params):
    net = tiny_net(module, max_epochs=2, callbacks=callbacks)
    defaults = {"random_state": 0, "mask_threshold": 0.2, "threshold_rule": "quantile"}
    return MaskTuneClassifier(net, **(defaults | params))


def never_training(module=TinyConvNet, **params):
    return classifier(module, callbacks=[NeverTrain()], **params)


def is_unfitted(clf):
    return not [name for name in vars(clf) if name.endswith("_")]


def in_file(X, path, dtype=None):
    """Return the same values as a file that is mapped read-only."""
    np.save(path, X if dtype is None else X.astype(dtype))
    return np.load(path, mmap_mode="r")


@pytest.fixture(scope="module")
def fitted():
    X, y = images()
    return classifier().fit(X, y), X, y


# ---------------------------------------------------------------- looking


@pytest.mark.parametrize("net", ["erm", "refit"])
@pytest.mark.parametrize("resize", [True, False])
def test_maps_of_a_dataset_equal_those_of_its_array(fitted, net, resize):
    clf, X, y = fitted
    expected = clf.saliency_maps(X, net=net, resize=resize)
    for other in (Rows(X, y), OnlyX(X), DatasetView(X), DatasetView(Rows(X, y))):
        maps = clf.saliency_maps(other, net=net, resize=resize)
        np.testing.assert_array_equal(maps, expected)


def test_masks_of_a_dataset_equal_those_of_its_array(fitted, tmp_path):
    clf, X, y = fitted
    expected, kept = clf.mask(X)
    for other in (
        Rows(X, y),
        OnlyX(X.astype(np.uint8)),
        DatasetView(X),
        DatasetView(Rows(X, y)),
        in_file(X, tmp_path / "X.npy"),
    ):
        masked, masks = clf.mask(other)
        assert masked.dtype == np.float32
        np.testing.assert_array_equal(masked, expected)
        np.testing.assert_array_equal(masks, kept)
    rows = [7, 3, 30]
    masked, masks = clf.mask(DatasetView(Rows(X, y))[rows])
    np.testing.assert_array_equal(masked, expected[rows])
    np.testing.assert_array_equal(masks, kept[rows])


def test_masking_a_mapped_file_keeps_its_dtype_and_the_file(fitted, tmp_path):
    clf, X, _ = fitted
    expected, _ = clf.mask(X)
    file = in_file(X, tmp_path / "X.npy", np.uint8)
    for given in (file, DatasetView(file)):
        masked, _ = clf.mask(given)
        assert masked.dtype == np.uint8
        assert masked.flags.writeable
        np.testing.assert_array_equal(masked, expected)
    np.testing.assert_array_equal(file, X)


def test_every_option_of_masking_works_with_a_dataset():
    X, y = images()
    params = {
        "mask_fill": "mean",
        "masking": "random",
        "n_mask_rounds": 2,
        "mask_from": "best",
        "saliency_target": "true",
        "store_maps": True,
        "augment": lambda x: x.flip(-1),
    }
    expected = classifier(**params).fit(X, y)
    clf = classifier(**params).fit(Rows(X, y))
    np.testing.assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))
    np.testing.assert_array_equal(clf.maps_, expected.maps_)
    np.testing.assert_array_equal(clf.mask_fill_, expected.mask_fill_)
    np.testing.assert_array_equal(clf.train_indices_, expected.train_indices_)
    assert clf.holdout_accuracy_ == expected.holdout_accuracy_


# ---------------------------------------------------------------- items


def items(X):
    """Return kinds of samples that hold the same numbers."""
    plain = torch.from_numpy(X)
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32)])
    read_only = X.copy()
    read_only.flags.writeable = False
    return {
        "float32": plain,
        "bfloat16": plain.to(torch.bfloat16),
        "float16": plain.half(),
        "float64": plain.double(),
        "uint8": plain.to(torch.uint8),
        "int64": plain.long(),
        "with a gradient": plain.clone().requires_grad_(),
        "torchvision": [to_tensor(x.transpose(1, 2, 0)) for x in X],
        "channels last in memory": plain.to(memory_format=torch.channels_last),
        "array": X,
        "uint8 array": X.astype(np.uint8),
        "uint16 array": X.astype(np.uint16),
        "float16 array": X.astype(np.float16),
        "read-only array": read_only,
        "negative strides": X[..., ::-1].copy()[..., ::-1],
        "big-endian": X.astype(">f4"),
    }


@pytest.mark.parametrize("kind", items(images(2)[0]))
def test_samples_of_any_kind_are_read_as_float32(kind):
    X, y = images(12)
    source = DatasetSource(Rows(items(X)[kind], y))
    assert source.item_shape == (1, 8, 8)
    for indices in (np.arange(12), np.array([5, 0, 5])):
        batch = source.batch(indices)
        assert type(batch) is torch.Tensor
        assert batch.dtype == torch.float32
        assert not batch.requires_grad
        np.testing.assert_array_equal(batch.numpy(), X[indices])
        batch.fill_(-1)
    np.testing.assert_array_equal(source.batch(np.arange(12)).numpy(), X)


def test_samples_may_be_rows_of_a_file_that_is_mapped_read_only(tmp_path):
    X, y = images()
    expected = classifier().fit(X, y).predict_proba(X)
    for dtype in (np.float32, np.uint8):
        dataset = Rows(in_file(X, tmp_path / "X.npy", dtype), y)
        proba = classifier().fit(dataset).predict_proba(dataset)
        np.testing.assert_array_equal(proba, expected)


def test_a_dataset_that_reads_many_at_once_is_asked_once_a_batch():
    X, y = images(12)

    class Many(Rows):
        def __getitems__(self, indices):
            self.read.append(indices)
            return [(self.X[i], self.y[i]) for i in indices]

    dataset = Many(X, y)
    source = DatasetSource(dataset)
    dataset.read.clear()
    np.testing.assert_array_equal(source.batch(np.array([3, 1])).numpy(), X[[3, 1]])
    assert dataset.read == [[3, 1]]
    assert all(type(i) is int for i in dataset.read[0])


def test_a_dataset_is_indexed_by_plain_integers():
    X, y = images(12)
    dataset = Rows(X, y)
    source = DatasetSource(dataset).take(np.array([7, 2]))
    source.batch(np.array([1, 0]))
    assert {type(i) for i in dataset.read} == {int}


# ---------------------------------------------------------------- labels


class Unread(Rows):
    """Knows its labels, and may be read once, for the shape of a sample."""

    def __getitem__(self, i):
        assert not self.read, "read again"
        return super().__getitem__(i)


@pytest.mark.parametrize(
    "targets",
    [lambda y: y, lambda y: y.tolist(), torch.from_numpy, lambda y: y.astype(np.uint8)],
    ids=["array", "list", "tensor", "uint8"],
)
def test_known_labels_cost_no_pass(targets):
    X, y = images()
    view = DatasetView(Unread(X, y, targets=targets(y)))
    np.testing.assert_array_equal(view.labels, y)
    first, second = (Unread(X[i], y[i], targets=targets(y[i])) for i in (y == 0, y > 0))
    both = DatasetView(ConcatDataset([first, second]))
    np.testing.assert_array_equal(both.labels, np.sort(y))
    subset = DatasetView(Subset(Unread(X, y, targets=targets(y)), [3, 0, 2]))
    np.testing.assert_array_equal(subset.labels, y[[3, 0, 2]])
    nested = Subset(Subset(Unread(X, y, targets=targets(y)), range(1, 9)), [5, 1])
    np.testing.assert_array_equal(DatasetView(nested).labels, y[[6, 2]])


@pytest.mark.parametrize(
    "label",
    [int, np.int64, torch.tensor, lambda y: np.array(y), lambda y: "ab"[y], bool],
    ids=["int", "numpy", "tensor", "0-d array", "text", "bool"],
)
def test_unknown_labels_cost_one_pass(label):
    X, y = images()
    labels = [label(int(i)) for i in y]
    dataset = Rows(X, labels)
    view = DatasetView(dataset)
    dataset.read.clear()
    expected = np.array([np.asarray(i).item() for i in labels])
    for _ in range(2):
        np.testing.assert_array_equal(view.labels, expected)
        np.testing.assert_array_equal(view[[2, 1]].labels, expected[[2, 1]])
    assert dataset.read == list(range(len(X)))
    assert view.labels.dtype == expected.dtype


def test_a_transform_of_the_targets_is_applied():
    X, y = images()

    def name(i):
        return ["land", "water"][i]

    dataset = WithTransform(X, y, target_transform=name)
    expected = classifier().fit(X, np.array(["land", "water"])[y])
    clf = classifier().fit(dataset)
    assert clf.classes_.tolist() == ["land", "water"]
    np.testing.assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))
    assert clf.score(Subset(dataset, range(9))) == expected.score(
        X[:9], [name(i) for i in y[:9]]
    )


# ---------------------------------------------------------------- a view


def test_a_view_is_as_long_and_of_the_shape_of_its_array():
    X, y = images()
    for view in (DatasetView(X), DatasetView(Rows(X, y)), DatasetView(X.tolist(), y)):
        assert len(view) == 40
        assert view.shape == (40, 1, 8, 8)
        assert view.ndim == 4
        assert repr(view) == "DatasetView(shape=(40, 1, 8, 8))"
        assert repr(view[:3]) == "DatasetView(shape=(3, 1, 8, 8))"
    frame_like = DatasetView(vectors()[0])
    assert (frame_like.ndim, frame_like.shape) == (2, (40, 6))


KEYS = {
    "slice": slice(30, 3, -4),
    "all": slice(None),
    "nothing": slice(0, 0),
    "list": [4, 1, 1, -1],
    "empty list": [],
    "array": np.array([4, 1, 1, -1]),
    "int32": np.array([4, 1], dtype=np.int32),
    "tensor": torch.tensor([4, 1]),
    "range": range(3, 7),
    "mask": np.arange(40) % 3 == 0,
    "list of bool": [True, False] * 20,
    "with an ellipsis": ([4, 1], ...),
    "mask with an ellipsis": (np.arange(40) % 3 == 0, ...),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_view_is_indexed_as_its_array_and_copies_nothing(key):
    X, y = images()
    key = KEYS[key]
    alone = key[0] if isinstance(key, tuple) else key
    rows = np.arange(40)[alone]
    dataset = Rows(X, y, targets=y)
    for data in (X, dataset):
        view = DatasetView(data, y)
        dataset.read.clear()
        part = view[key]
        assert type(part) is DatasetView
        assert part.shape == (len(rows), 1, 8, 8)
        np.testing.assert_array_equal(part.labels, y[rows])
        assert part.source.root is view.source
        assert dataset.read == []
        samples = np.array([part[i] for i in range(len(rows))]).reshape(-1, 1, 8, 8)
        np.testing.assert_array_equal(samples, X[rows])
        if data is dataset:
            assert dataset.read == rows.tolist()
        else:
            assert view.source.X is X


@pytest.mark.parametrize("index", [0, 39, -1, -40, np.int64(7), np.array(7)])
def test_one_sample_of_a_view_is_an_array(index):
    X, y = images()
    for data in (X, Rows(X, y), X.astype(np.uint8)):
        for view, offset in ((DatasetView(data), 0), (DatasetView(data)[::-1], 1)):
            sample = view[index]
            assert isinstance(sample, np.ndarray)
            assert sample.dtype == np.float32
            np.testing.assert_array_equal(
                sample, X[::-1][index] if offset else X[index]
            )
            np.testing.assert_array_equal(view[index, ...], sample)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (40, "out of bounds"),
        (-41, "out of bounds"),
        ([3, 40], "out of bounds"),
        ([True, False], "boolean index"),
        ("a", "indices|integers"),
        (1.5, "integer"),
        ([0.0, 1.0], "integer"),
        (None, "integer|samples only"),
        ((0, 1), r"by samples only, got \(0, 1\)"),
        ((slice(None), 0), "by samples only"),
        ((..., 0), "by samples only"),
        (([0], ..., 0), "by samples only"),
        ([[0, 1], [2, 3]], "samples|one axis|1-?d"),
    ],
    ids=str,
)
def test_a_bad_index_of_a_view_is_an_index_error(key, message):
    for data in (images()[0], Rows(*images())):
        view = DatasetView(data)
        for part in (view, view[::-1]):
            with pytest.raises(IndexError, match=message):
                part[key]


def test_iterating_over_a_view_ends():
    X, y = images(5)
    for view in (DatasetView(X), DatasetView(Rows(X, y))[::-1][::-1]):
        np.testing.assert_array_equal(list(view), X)
        np.testing.assert_array_equal(np.asarray(view), X)


def test_parts_of_parts_of_a_view_read_only_their_rows():
    X, y = images()
    dataset = Rows(X, y, targets=y)
    part = DatasetView(dataset)[10:30][::-2][[0, 3, -1]]
    dataset.read.clear()
    np.testing.assert_array_equal([part[0], part[1], part[2]], X[[29, 23, 11]])
    np.testing.assert_array_equal(part.labels, y[[29, 23, 11]])
    assert dataset.read == [29, 23, 11]


def test_labels_of_a_view_are_its_own_or_those_of_the_data():
    X, y = images()
    names = np.array(["land", "water"])[y]
    assert DatasetView(X).labels is None
    assert DatasetView(X)[:3].labels is None
    assert DatasetView(OnlyX(X)).labels is None
    np.testing.assert_array_equal(DatasetView(Rows(X, y), names).labels, names)
    np.testing.assert_array_equal(
        DatasetView(Rows(X, y), names)[3:5].labels, names[3:5]
    )
    np.testing.assert_array_equal(DatasetView(X, names.tolist()).labels, names)
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    np.testing.assert_array_equal(DatasetView(tensors).labels, y)
    np.testing.assert_array_equal(DatasetView(tensors, names)[9:].labels, names[9:])


def test_a_view_of_a_view_is_the_same_data():
    X, y = images()
    part = DatasetView(X, y)[5:9]
    again = DatasetView(part)
    assert again.source is part.source
    np.testing.assert_array_equal(again.labels, y[5:9])
    np.testing.assert_array_equal(DatasetView(part, 1 - y[5:9]).labels, 1 - y[5:9])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_view_can_be_pickled(protocol, tmp_path):
    X, y = images()
    for data in (X, Rows(X, y), in_file(X, tmp_path / "X.npy")):
        part = DatasetView(data, y)[[4, 1]]
        loaded = pickle.loads(pickle.dumps(part, protocol))
        np.testing.assert_array_equal(np.asarray(loaded), X[[4, 1]])
        np.testing.assert_array_equal(loaded.labels, y[[4, 1]])
        assert repr(loaded) == repr(part)


# ---------------------------------------------------------------- model selection


def views(X, y, folder):
    """Return views of the same data, however it is kept."""
    file = open_memmap(folder / "y.npy", "w+", X.dtype, X.shape)
    file[:] = X
    raw = np.memmap(folder / "raw", X.dtype, "w+", shape=X.shape)
    raw[:] = X
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    return {
        "array": DatasetView(X, y),
        "Dataset": DatasetView(Rows(X, y)),
        "Dataset with targets": DatasetView(Rows(X, y, targets=y)),
        "TensorDataset": DatasetView(tensors),
        "Subset": DatasetView(Subset(tensors, range(len(X)))),
        "open_memmap": DatasetView(file, y),
        "memmap": DatasetView(raw, y),
        "read-only file": DatasetView(in_file(X, folder / "X.npy"), y),
        "uint8 file": DatasetView(in_file(X, folder / "X8.npy", np.uint8), y),
    }


VIEWS = (
    "array",
    "Dataset",
    "Dataset with targets",
    "TensorDataset",
    "Subset",
    "open_memmap",
    "memmap",
    "read-only file",
    "uint8 file",
)


@pytest.fixture(scope="module")
def expected_scores():
    X, y = images()
    grid = GridSearchCV(classifier(), {"mask_threshold": [0.1, 0.3]}, cv=2)
    return {
        "cross": cross_val_score(classifier(), X, y, cv=2),
        "grid": grid.fit(X, y),
        "proba": cross_val_predict(classifier(), X, y, cv=2, method="predict_proba"),
    }


@pytest.mark.parametrize("kind", VIEWS)
def test_a_fit_on_a_view_equals_that_on_the_array(kind, tmp_path):
    X, y = images()
    view = views(X, y, tmp_path)[kind]
    expected = classifier().fit(X, y)
    for clf in (classifier().fit(view), classifier().fit(view, y)):
        np.testing.assert_array_equal(
            clf.predict_proba(view), expected.predict_proba(X)
        )
        np.testing.assert_array_equal(
            clf.calibration_scores_, expected.calibration_scores_
        )
        assert clf.score(view) == clf.score(view, y) == expected.score(X, y)
    rows = np.array([30, 2, 9, 2])
    np.testing.assert_array_equal(
        clf.predict_proba(view[rows]), clf.predict_proba(X[rows])
    )


@pytest.mark.parametrize("kind", VIEWS)
def test_cross_validation_over_a_view_equals_that_over_the_array(
    kind, tmp_path, expected_scores
):
    X, y = images()
    view = views(X, y, tmp_path)[kind]
    for labels in (view.labels, y):
        scores = cross_val_score(classifier(), view, labels, cv=2)
        np.testing.assert_array_equal(scores, expected_scores["cross"])
    proba = cross_val_predict(
        classifier(), view, view.labels, cv=2, method="predict_proba"
    )
    np.testing.assert_array_equal(proba, expected_scores["proba"])


@pytest.mark.parametrize("kind", ["Dataset", "open_memmap"])
def test_a_search_over_a_view_equals_that_over_the_array(
    kind, tmp_path, expected_scores
):
    X, y = images()
    view = views(X, y, tmp_path)[kind]
    expected = expected_scores["grid"]
    search = GridSearchCV(classifier(), {"mask_threshold": [0.1, 0.3]}, cv=2)
    search.fit(view, view.labels)
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(
            search.cv_results_[name], expected.cv_results_[name]
        )
    assert search.best_params_ == expected.best_params_
    np.testing.assert_array_equal(search.predict_proba(view), expected.predict_proba(X))
    assert search.score(view, y) == expected.score(X, y)


def test_folds_bring_their_labels_where_a_splitter_needs_none():
    X, y = images()
    cv = KFold(2, shuffle=True, random_state=0)
    expected = cross_val_score(classifier(), X, y, cv=cv)
    for view in (DatasetView(X, y), DatasetView(Rows(X, y))):
        np.testing.assert_array_equal(
            cross_val_score(classifier(), view, cv=cv), expected
        )


def test_a_search_with_two_processes_equals_that_with_one(tmp_path, expected_scores):
    X, y = images()
    view = views(X, y, tmp_path)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        for kind in ("Dataset", "read-only file"):
            scores = cross_val_score(
                classifier(), view[kind], view[kind].labels, cv=2, n_jobs=2
            )
            np.testing.assert_array_equal(scores, expected_scores["cross"])


@pytest.mark.parametrize("stratify", [True, False])
def test_train_test_split_gives_views_of_the_same_data(stratify):
    X, y = images()
    split = partial(train_test_split, random_state=0, stratify=y if stratify else None)
    expected_train, expected_test, y_train, y_test = split(X, y)
    for data in (X, Rows(X, y)):
        view = DatasetView(data, y)
        train, test = split(view)
        assert type(train) is type(test) is DatasetView
        assert train.source.root is test.source.root is view.source
        np.testing.assert_array_equal(np.asarray(train), expected_train)
        np.testing.assert_array_equal(np.asarray(test), expected_test)
        np.testing.assert_array_equal(train.labels, y_train)
        np.testing.assert_array_equal(test.labels, y_test)


def test_a_fit_on_a_fold_reads_no_sample_outside_it():
    X, y = images()
    dataset = Rows(X, y, targets=y)
    view = DatasetView(dataset)
    for train, test in StratifiedKFold(2).split(view, view.labels):
        dataset.read.clear()
        clf = classifier().fit(view[train])
        assert set(dataset.read) == set(train.tolist())
        dataset.read.clear()
        clf.score(view[test])
        assert dataset.read == test.tolist()


def test_a_sample_is_read_a_known_number_of_times():
    X, y = images()
    dataset = Rows(X, y, targets=y)
    # Two epochs, maps and one refit; what checks read besides comes from few rows.
    classifier(validation_fraction=0).fit(dataset)
    counts = np.bincount(dataset.read, minlength=40)
    assert np.median(counts) == 4
    assert counts.min() == 4


# ---------------------------------------------------------------- files


def test_a_file_is_read_in_batches_and_stays_as_it_is(tmp_path, monkeypatch):
    X, y = images()
    file = in_file(X, tmp_path / "X.npy", np.uint8)
    expected = classifier().fit(X, y).predict_proba(X)
    reads = []
    batch = ArraySource.batch

    def spy(source, indices):
        assert source.X.dtype == np.uint8
        assert np.shares_memory(source.X, file)
        reads.append(len(indices))
        return batch(source, indices)

    monkeypatch.setattr(ArraySource, "batch", spy)
    for given in (file, DatasetView(file, y), DatasetView(file, y)[:]):
        reads.clear()
        clf = classifier().fit(given, y)
        # The net's batches hold 16, the last one of 32 rows to train on the same.
        assert max(reads) == 16
        np.testing.assert_array_equal(clf.predict_proba(given), expected)
        clf.saliency_maps(given)
        assert max(reads) == 16


class LargeImages(nn.Module):
    """Looks at every 32nd position, so that nothing but the batch is large."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, stride=32)
        self.head = nn.Linear(4, 2)

    def forward(self, X):
        return self.head(torch.relu(self.convolution(X)).mean(dim=(2, 3)))


@pytest.mark.parametrize(("dtype", "n"), [(np.uint8, 512), (np.float32, 128)])
def test_no_copy_of_a_file_is_ever_in_memory(dtype, n, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = rng.integers(0, 100, (n, 1, 128, 128), dtype=np.uint8)
    X += 100 * y[:, None, None, None].astype(np.uint8)
    file = in_file(X, tmp_path / "X.npy", dtype)
    del X
    monkeypatch.setattr("masktune_sk.data._source.BLOCK_BYTES", 2**20)
    net = tiny_net(LargeImages, max_epochs=1)
    for given in (file, DatasetView(file, y), DatasetView(file, y)[::-1]):
        clf = MaskTuneClassifier(net, mask_threshold=0.2, threshold_rule="quantile")
        tracemalloc.start()
        try:
            clf.fit(given, y).predict_with_reject(given)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # Of a file of 8 MB; a batch, of 1 MB, what it is made from, and its masks.
        assert peak < file.nbytes / 2


@pytest.mark.parametrize("layout", ["F", "negative strides", "strided", "writable"])
def test_a_file_may_have_any_layout(layout, tmp_path):
    X, y = images()
    if layout == "F":
        file = open_memmap(
            tmp_path / "X.npy", "w+", X.dtype, X.shape, fortran_order=True
        )
        file[:] = X
        assert file.flags.f_contiguous
    elif layout == "writable":
        in_file(X, tmp_path / "X.npy")
        file = np.load(tmp_path / "X.npy", mmap_mode="r+")
    elif layout == "strided":
        file = in_file(np.repeat(X, 2, axis=0), tmp_path / "X.npy")[::2]
    else:
        turned = np.ascontiguousarray(X[::-1, ..., ::-1])
        file = in_file(turned, tmp_path / "X.npy")[::-1, ..., ::-1]
        assert min(file.strides) < 0
    expected = classifier().fit(X, y).predict_proba(X)
    for given in (file, DatasetView(file)):
        proba = classifier().fit(given, y).predict_proba(given)
        np.testing.assert_array_equal(proba, expected)
    np.testing.assert_array_equal(file, X)


def test_the_fingerprint_does_not_depend_on_where_the_data_is(tmp_path):
    X, y = images()
    plain = ArraySource(X, y).fingerprint()
    turned = np.r_[X[:3], X[::-1]]
    rows = np.arange(42, 2, -1)
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    for other in (
        X.astype(np.uint8),
        in_file(X, tmp_path / "X.npy"),
        in_file(X, tmp_path / "X8.npy", np.uint8),
        Rows(X, y),
        Rows(X, y, targets=y),
        OnlyX(X.astype(np.uint8)),
        tensors,
        Subset(tensors, range(40)),
        DatasetView(X),
        DatasetView(Rows(X, 1 - y)),
        DatasetView(turned)[rows],
        DatasetView(Rows(turned, np.zeros(43)))[rows],
    ):
        source, _ = as_source(other)
        assert source.labelled(y).fingerprint() == plain
        assert source.labelled(1 - y).fingerprint() != plain
    assert as_source(Rows(X + 1, y))[0].labelled(y).fingerprint() != plain


# ---------------------------------------------------------------- worker processes


def with_workers(net, **params):
    prefixes = ("iterator_train", "iterator_valid")
    return net.set_params(
        **{f"estimator__{prefix}__num_workers": 1 for prefix in prefixes}, **params
    )


class AtHome(Rows):
    """Refuses to be read in the process of the test, apart from the checks."""

    def __init__(self, X, y):
        super().__init__(X, y)
        self.n_here = 0

    def __getitem__(self, i):
        self.n_here += get_worker_info() is None
        return super().__getitem__(i)


def test_worker_processes_read_a_dataset_and_nothing_else_changes():
    X, y = images(80)
    fixed_order = {"estimator__iterator_train__shuffle": False}
    expected = classifier().set_params(**fixed_order).fit(X, y)
    clf = with_workers(classifier(), **fixed_order)
    dataset = AtHome(X, y)
    clf.fit(dataset)
    # The first sample, a few read twice, and the few that the net is tried on.
    assert dataset.n_here < 60
    dataset.n_here = 0
    np.testing.assert_array_equal(clf.predict_proba(dataset), expected.predict_proba(X))
    np.testing.assert_array_equal(clf.saliency_maps(dataset), expected.saliency_maps(X))
    assert dataset.n_here == 2  # the first sample, for its shape, in each call
    np.testing.assert_array_equal(clf.calibration_scores_, expected.calibration_scores_)


class Dies(Rows):
    """Ends a worker process in its first batch, while the test waits for that."""

    dies = True

    def __getitem__(self, i):
        # The few samples that a net is tried on before it is trained are others.
        if self.dies and i == 1 and get_worker_info() is not None:
            os._exit(1)
        return super().__getitem__(i)


def assert_says_that_a_worker_died(function, *args):
    with pytest.raises((RuntimeError, OSError), match="(?i)worker|connection") as info:
        function(*args)
    error, message = type(info.value), str(info.value)
    # A loader that lives on in a traceback reports its dead workers once more, wherever
    # that may be, when any other process ends.
    del info
    gc.collect()
    assert error is RuntimeError
    assert re.match("A worker process .* died: .*num_workers", message)


@pytest.mark.parametrize("known", [True, False], ids=["training", "pass over labels"])
def test_a_worker_process_that_dies_is_an_error_and_leaves_it_unfitted(known):
    X, y = images()
    dataset = Dies(X, y, targets=y if known else None)
    clf = with_workers(
        classifier(validation_fraction=0), estimator__iterator_train__shuffle=False
    ).fit(X, y)
    assert_says_that_a_worker_died(clf.fit, dataset)
    assert is_unfitted(clf)
    with pytest.raises(NotFittedError):
        clf.predict(X)
    dataset.dies = False
    assert clf.fit(dataset).predict(X).shape == (40,)


@pytest.mark.parametrize("method", ["predict", "predict_with_reject", "saliency_maps"])
def test_a_worker_process_that_dies_later_is_an_error_too(method):
    X, y = images()
    clf = with_workers(classifier()).fit(X, y)
    assert_says_that_a_worker_died(getattr(clf, method), Dies(X, y))
    assert clf.predict(X).shape == (40,)


class Loses(DataLoader):
    """A loader that loses its worker while it takes a batch from it."""

    error = None

    def __iter__(self):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(104, "reset"), ConnectionRefusedError(), EOFError()],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_a_dead_worker_leaves_is_the_same_error(error, monkeypatch):
    X, y = images()
    monkeypatch.setattr(Loses, "error", error)
    clf = with_workers(classifier(), estimator__iterator_train=Loses)
    with pytest.raises(RuntimeError, match="^A worker process .* died"):
        clf.fit(X, y)
    assert is_unfitted(clf)


def test_an_error_in_a_worker_process_names_the_sample():
    X, y = images()
    X[35] = np.nan
    clf = with_workers(classifier())
    with pytest.raises(ValueError, match=r"Sample 35 of the Dataset contains NaN"):
        clf.fit(Rows(X, y))
    assert is_unfitted(clf)
    gc.collect()  # here, not in another test: torch waits for the worker to end


# ---------------------------------------------------------------- bad input


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1, 8, 8), 0


class NoLength(Dataset):
    def __getitem__(self, i):
        return torch.zeros(1, 8, 8), i % 2


class Triples(Rows):
    def __getitem__(self, i):
        return (*super().__getitem__(i), i)


def bad_datasets():
    X, y = images()
    first = X[0]
    return {
        "stream": (Stream(), TypeError, r"Stream can't be read by index.*map-style"),
        "no length": (NoLength(), TypeError, "has no len|__len__"),
        "empty": (Rows(X[:0], y[:0]), ValueError, r"Dataset has 0 sample\(s\)"),
        "empty subset": (Subset(Rows(X, y), []), ValueError, r"has 0 sample\(s\)"),
        "three parts": (Triples(X, y), TypeError, r"has 3 parts; expected \(x, y\)"),
        "image of PIL": (
            Rows([v2.functional.to_pil_image(x[0]) for x in X], y),
            TypeError,
            r"of type Image; expected a tensor.*v2\.ToImage\(\)",
        ),
        "list": (Rows(X.tolist(), y), TypeError, "of type list; expected a tensor"),
        "dict": (Rows([{"x": x} for x in X], y), TypeError, "of type dict"),
        "number": (Rows(X[:, 0, 0, 0].tolist(), y), TypeError, "of type float"),
        "0-D": (Rows(X[:, 0, 0, 0].copy(), y), TypeError, "of type float32"),
        "0-D tensor": (
            Rows(torch.from_numpy(X[:, 0, 0, 0]), y),
            ValueError,
            r"got shape \(1,\)",
        ),
        "grey without channels": (Rows(X[:, 0], y), ValueError, "without a channel"),
        "5-D": (Rows(X[:, None], y), ValueError, r"got shape \(1, 1, 1, 8, 8\)"),
        "empty axis": (Rows(X[:, :, :0], y), ValueError, "empty axis"),
        "complex": (Rows(X + 0j, y), ValueError, "must hold real numbers"),
        "text": (Rows(X.astype(str), y), TypeError, "str"),
        "too large": (
            Rows(np.full(X.shape, 1e39), y),
            ValueError,
            "too large for dtype",
        ),
        "no labels": (OnlyX(X), ValueError, r"requires y .* no pairs \(x, y\)"),
        "labels of None": (Rows(X, [None] * 40), ValueError, "Unknown label|None"),
        "too few targets": (
            Rows(X, y, targets=y[:-1]),
            ValueError,
            "40 samples and 39 labels in its targets",
        ),
        "continuous labels": (Rows(X, y + first.sum() * 0.013), ValueError, "Unknown"),
        "NaN label": (Rows(X, np.where(y == 1, np.nan, 0)), ValueError, "NaN"),
        "labels of two columns": (
            Rows(X, np.c_[y, y], targets=np.c_[y, y]),
            ValueError,
            "1d array",
        ),
        "one class": (Rows(X, np.zeros_like(y)), ValueError, "one class"),
        "single of a class": (Rows(X, np.r_[2, y[1:]]), ValueError, "class 2 has 1"),
    }


@pytest.mark.parametrize("name", bad_datasets())
def test_a_bad_dataset_is_refused_before_training(name):
    dataset, error, message = bad_datasets()[name]
    clf = never_training()
    with pytest.raises(error, match=message):
        clf.fit(dataset)
    assert is_unfitted(clf)
    with pytest.raises(error, match=message):
        clf.fit(DatasetView(dataset))


@pytest.mark.parametrize("length", [39, 41])
def test_labels_of_another_length_are_refused(length):
    X, y = images()
    labels = np.resize(y, length)
    clf = never_training()
    for given, beside in (
        (Rows(X, y), labels),
        (DatasetView(X), labels),
        (DatasetView(Rows(X, y)), labels),
        (DatasetView(X, labels), None),
        (DatasetView(Rows(X, y), labels), None),
    ):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            clf.fit(given, beside)
        assert is_unfitted(clf)


# Among the samples that the checks before a training read, and others.
@pytest.mark.parametrize("index", [0, 7, 13, 26, 32, 39])
def test_a_sample_that_is_not_finite_is_named(index):
    X, y = images()
    for value in (np.nan, np.inf):
        X[index, 0, 3, 2] = value
        clf = classifier(validation_fraction=0)
        message = f"^Sample {index} of the Dataset contains NaN or infinity"
        with pytest.raises(ValueError, match=message if index else "NaN|infinity"):
            clf.fit(Rows(X, y))
        assert is_unfitted(clf)


@pytest.mark.parametrize("index", [1, 7, 13, 26, 32, 39])
def test_a_sample_of_another_shape_is_named(index):
    X, y = images()
    rows = list(X)
    rows[index] = rows[index][:, 1:]
    message = rf"^Sample {index} of the Dataset has shape \(1, 7, 8\).*\(1, 8, 8\)"
    clf = classifier(validation_fraction=0)
    with pytest.raises(ValueError, match=message):
        clf.fit(Rows(rows, y))
    assert is_unfitted(clf)


@pytest.mark.parametrize("index", [0, 7, 13, 26, 32, 39])
def test_a_label_unlike_the_targets_is_named(index):
    X, y = images()
    labels = y.copy()
    labels[index] = 1 - labels[index]
    message = f"^Sample {index} of the Dataset has the label {labels[index]}, and had"
    clf = classifier(validation_fraction=0)
    with pytest.raises(ValueError, match=message):
        clf.fit(Rows(X, labels, targets=y))
    assert is_unfitted(clf)


class Reshuffles(Rows):
    """Gives other samples in each pass, as a generator of batches may."""

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        passed = (len(self.read) - 2) // len(self)
        return (x, y) if passed < 1 else (self.X[i - 1], self.y[i - 1])


def test_labels_that_change_between_passes_are_refused():
    X, y = images()
    with pytest.raises(ValueError, match=r"Labels must stay the same.*shuffle=True"):
        classifier().fit(Reshuffles(X, y))


def test_bad_samples_are_named_at_predict(fitted):
    clf, X, y = fitted
    broken = X.copy()
    broken[33] = np.nan
    for method in ("predict", "predict_with_reject", "saliency_maps", "mask"):
        with pytest.raises(ValueError, match="^Sample 33 of the Dataset contains NaN"):
            getattr(clf, method)(Rows(broken, y))
        with pytest.raises(ValueError, match="NaN or infinity, in sample 33"):
            getattr(clf, method)(DatasetView(broken))
        with pytest.raises(ValueError, match="NaN or infinity, in sample 3\\b"):
            getattr(clf, method)(DatasetView(broken)[30:])


def test_samples_of_other_shapes_are_refused_at_predict(fitted):
    clf, X, y = fitted
    for other in (X[..., :-1], np.repeat(X, 3, axis=1), X.reshape(40, -1)):
        for given in (Rows(other, y), OnlyX(other), DatasetView(other)):
            with pytest.raises(ValueError, match="was fitted on.*Resize them"):
                clf.predict(given)
    for given in (Stream(), Triples(X, y)):
        with pytest.raises(TypeError, match=r"map-style|expected \(x, y\)"):
            clf.predict(given)
    with pytest.raises(ValueError, match="without a channel"):
        clf.predict(Rows(X[:, 0], y))


def bad_views(tmp_path):
    X, y = images()
    nan, inf = X.copy(), X.copy()
    nan[17, 0, 2, 2], inf[17, 0, 2, 2] = np.nan, np.inf
    return {
        "NaN": (in_file(nan, tmp_path / "n.npy"), "NaN or infinity, in sample 17"),
        "infinity": (in_file(inf, tmp_path / "i.npy"), "or infinity, in sample 17"),
        "float16": (nan.astype(np.float16), "NaN or infinity, in sample 17"),
        "3-D": (X[:, 0], "without a channel"),
        "5-D": (X[:, None], "got shape"),
        "empty": (X[:0], "0 sample"),
        "empty axis": (X[:, :, :0], "empty axis"),
        "complex": (X + 0j, "real numbers|[Cc]omplex"),
        "text": (X.astype(str), "real numbers|could not convert"),
    }


@pytest.mark.parametrize(
    "name",
    ["NaN", "infinity", "float16", "3-D", "5-D", "empty", "empty axis"]
    + ["complex", "text"],
)
def test_a_view_of_a_bad_array_is_refused_before_training(name, tmp_path):
    X, message = bad_views(tmp_path)[name]
    y = images()[1][: len(X)]
    clf = never_training()
    with pytest.raises(ValueError, match=message):
        clf.fit(DatasetView(X), y)
    assert is_unfitted(clf)


def test_a_view_of_numbers_beyond_float32_is_refused():
    X, y = images()
    X = X.astype(np.float64)
    X[5] = 1e39
    with pytest.raises(ValueError, match="infinity|too large"):
        never_training().fit(DatasetView(X), y)


def test_a_fold_without_samples_is_refused(fitted):
    clf, X, y = fitted
    for view in (DatasetView(X, y), DatasetView(Rows(X, y))):
        with pytest.raises(ValueError, match="0 sample"):
            never_training().fit(view[:0])
        with pytest.raises(ValueError, match="0 sample"):
            clf.predict(view[:0])


def test_a_bad_sample_outside_a_fold_does_not_matter():
    X, y = images()
    X[[0, 13, 39]] = np.nan
    rows = np.setdiff1d(np.arange(40), [0, 13, 39])
    expected = classifier().fit(X[rows], y[rows]).predict_proba(X[rows])
    view = DatasetView(X, y)[rows]
    np.testing.assert_array_equal(classifier().fit(view).predict_proba(view), expected)
    # Of a dataset the first sample is read for its shape, whatever is taken.
    X[0] = 0
    view = DatasetView(Rows(X, y, targets=y))[rows]
    np.testing.assert_array_equal(classifier().fit(view).predict_proba(view), expected)


# ---------------------------------------------------------------- random samples


def jitter(x):
    return x + random.random()


def test_a_random_transform_in_a_dataset_warns_and_points_to_augment():
    X, y = images()
    dataset = WithTransform(X, y, transform=jitter)
    with pytest.warns(RandomDatasetWarning, match=r"WithTransform.*pass it as augment"):
        classifier().fit(dataset)
    with pytest.warns(RandomDatasetWarning, match="augment="):
        classifier().fit(DatasetView(dataset)[::-1])


def test_a_random_transform_as_augment_does_not_warn():
    X, y = images()
    clf = classifier(augment=jitter).fit(WithTransform(X, y))
    assert clf.predict(X).shape == (40,)


# ---------------------------------------------------------------- what skorch is given


@pytest.mark.parametrize("on_train", [False, True], ids=["valid", "train"])
@pytest.mark.parametrize(
    "scoring",
    ["accuracy", "neg_log_loss", lambda net, X, y: accuracy_score(y, net.predict(X))],
    ids=["accuracy", "log loss", "function"],
)
@pytest.mark.parametrize("as_dataset", [False, True], ids=["array", "Dataset"])
def test_a_score_that_is_not_cached_equals_one_that_is(scoring, on_train, as_dataset):
    X, y = images()
    # Cached is what the net said while it trained: the same only if it learns nothing.
    net = tiny_net(
        convolutions(),
        lr=0.0,
        optimizer=torch.optim.SGD,
        iterator_train__shuffle=False,
        callbacks=[
            (name, EpochScoring(scoring, name=name, on_train=on_train, **params))
            for name, params in {
                "cached": {},
                "not_cached": {"use_caching": False},
            }.items()
        ],
    )
    seen = []

    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append([net.history[-1, n] for n in ("cached", "not_cached")])

    net.callbacks.append(("note", Note()))
    clf = MaskTuneClassifier(net, random_state=0)
    clf.fit(*((Rows(X, y),) if as_dataset else (X, y)))
    assert len(seen) == 3
    for cached, not_cached in seen:
        assert not_cached == pytest.approx(cached, rel=1e-6)


def convolutions():
    """Return a module without batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


class Counting(ArraySource):
    def __init__(self, X, labels):
        super().__init__(X, labels)
        self.reads = []

    def batch(self, indices):
        self.reads.append(np.asarray(indices).tolist())
        return super().batch(indices)


def stack(pairs):
    X, y = zip(*pairs, strict=True)
    return torch.stack(X), torch.stack(y)


@pytest.mark.parametrize("params", [{}, {"collate_fn": stack}], ids=["default", "own"])
def test_a_loader_of_the_users_own_reads_whole_batches(params):
    X, y = vectors(10)
    source = Counting(X, y)
    batches = list(DataLoader(TorchView(source), 4, num_workers=0, **params))
    assert source.reads == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    np.testing.assert_array_equal(torch.cat([x for x, _ in batches]), X)
    np.testing.assert_array_equal(torch.cat([labels for _, labels in batches]), y)
    assert all(labels.dtype == torch.int64 for _, labels in batches)


def test_a_subset_of_what_skorch_is_given_reads_whole_batches():
    X, y = vectors(10)
    source = Counting(X, y)
    list(DataLoader(Subset(TorchView(source), [7, 1, 5]), 2))
    assert source.reads == [[7, 1], [5]]


def test_a_fit_with_a_collate_function_reads_whole_batches():
    X, y = vectors()
    dataset = Rows(X, y, targets=y)
    params = {
        "estimator__iterator_train__collate_fn": stack,
        "estimator__iterator_train__shuffle": False,
    }
    clf = classifier(TinyMLP, masking="none").set_params(**params)
    expected = classifier(TinyMLP, masking="none").set_params(
        estimator__iterator_train__shuffle=False
    )
    clf.fit(dataset)
    expected.fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))


def test_as_array_refuses_a_dataset_and_names_its_class():
    with pytest.raises(
        TypeError, match=r"^y must be .* Dataset \(Rows\).* as X, alone"
    ):
        as_array(Rows(*images()))
    with pytest.raises(TypeError, match=re.escape("torch Dataset (Rows)")):
        DatasetView(images()[0], Rows(*images()))
