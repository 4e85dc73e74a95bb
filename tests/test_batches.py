"""Tests of batches for several processes, and for a device."""

from itertools import chain

import numpy as np
import pytest
import torch

from masktune_sk.data import ArraySource, BatchIterator, TorchView


def view_of(n, augment=None):
    X = np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)
    return TorchView(ArraySource(X, np.arange(n) % 3), augment)


def rows_of(iterator):
    """Return the rows that each batch holds."""
    return [(X[:, 0] / 2).int().tolist() for X, _ in iterator]


def shares(n, batch_size, n_ranks, seed=None, epochs=1, **params):
    """Return the rows of each batch for each rank, of one epoch after the other."""
    if seed is not None:
        params["shuffle"] = True
    read = []
    for rank in range(n_ranks):
        # Each process has a generator of its own, seeded alike.
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        iterator = BatchIterator(
            view_of(n), batch_size, share=(rank, n_ranks), generator=generator, **params
        )
        epochs_read = [rows_of(iterator) for _ in range(epochs)]
        assert {len(rows) for rows in epochs_read} == {len(iterator)}
        read.append(list(chain(*epochs_read)))
    return read


SHARED = [
    (n, size, n_ranks)
    for n_ranks in (1, 2, 3, 4)
    for size in (2 * n_ranks, 8, 11)
    for n in range(2 * n_ranks, 40)
    if size >= 2 * n_ranks
]


# ---------------------------------------------------------------- shares of a batch


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_shares_make_up_each_batch_in_order(drop_last):
    for n, size, n_ranks in SHARED:
        read = shares(n, size, n_ranks, drop_last=drop_last)
        case = (n, size, n_ranks)
        assert len({len(batches) for batches in read}) == 1, case
        whole = [list(chain(*parts)) for parts in zip(*read, strict=True)]
        kept = n - n % size if drop_last else n
        assert list(chain(*whole)) == list(range(kept)), case
        assert all(len(rows) == size for rows in whole[:-1]), case
        if whole and not drop_last:
            assert len(whole[-1]) < size + 2 * n_ranks, case


def test_no_share_is_empty_and_all_are_nearly_equal():
    for n, size, n_ranks in SHARED:
        for parts in zip(*shares(n, size, n_ranks), strict=True):
            lengths = {len(rows) for rows in parts}
            # Batch normalisation cannot train on one.
            assert min(lengths) >= 2, (n, size, n_ranks)
            assert max(lengths) - min(lengths) <= 1, (n, size, n_ranks)


def test_generators_in_step_give_every_process_the_same_order():
    read = shares(23, 8, 2, seed=0, epochs=2)
    whole = [list(chain(*parts)) for parts in zip(*read, strict=True)]
    first, second = list(chain(*whole[:3])), list(chain(*whole[3:]))
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    generator = torch.Generator().manual_seed(0)
    assert first == torch.randperm(23, generator=generator).tolist()


def test_a_share_is_the_same_rows_as_without_shares():
    alone = BatchIterator(
        view_of(23), 8, shuffle=True, generator=torch.Generator().manual_seed(3)
    )
    read = shares(23, 8, 2, seed=3)
    assert [list(chain(*parts)) for parts in zip(*read, strict=True)] == rows_of(alone)


def test_a_generator_of_ones_own_leaves_that_of_torch():
    before = torch.get_rng_state()
    shares(20, 4, 2, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("n", "n_ranks", "sizes"),
    [
        (19, 1, [8, 8, 3]),
        (17, 1, [8, 9]),
        # Less than two samples for each process join the batch before.
        (19, 2, [8, 11]),
        (20, 2, [8, 8, 4]),
        (21, 3, [8, 13]),
        (22, 3, [8, 8, 6]),
        (23, 4, [8, 15]),
    ],
)
def test_a_last_batch_that_is_too_small_to_share_joins_the_one_before(
    n, n_ranks, sizes
):
    read = shares(n, 8, n_ranks)
    assert [sum(map(len, parts)) for parts in zip(*read, strict=True)] == sizes


def test_one_process_reads_everything():
    assert shares(17, 4, 1) == [rows_of(BatchIterator(view_of(17), 4))]


def test_labels_and_augmentation_go_with_the_rows_of_a_share():
    view = view_of(20, augment=lambda x: x + 1)
    for rank in range(2):
        for X, y in BatchIterator(view, 6, share=(rank, 2)):
            rows = (X[:, 0] - 1) / 2
            np.testing.assert_array_equal(rows % 3, y)


# ---------------------------------------------------------------- devices


class Noting(TorchView):
    """A view that keeps what it read."""

    def __init__(self, *args):
        super().__init__(*args)
        self.batches = []

    def read(self, indices):
        self.batches.append(super().read(indices))
        return self.batches[-1]


def noting(n=10):
    return Noting(view_of(n).source)


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_on_a_processor_batches_are_what_was_read_and_not_copied(device):
    view = noting()
    for i, batch in enumerate(BatchIterator(view, 4, device=device)):
        assert len(view.batches) == i + 1
        assert batch is view.batches[i]
    assert len(view.batches) == 3


@pytest.mark.parametrize(("n", "n_batches"), [(10, 3), (9, 2), (3, 1), (0, 0)])
def test_copies_to_a_device_run_one_batch_ahead(monkeypatch, n, n_batches):
    # What is pinned on the way to a GPU stays where it is here.
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    view = noting(n)
    iterator = BatchIterator(view, 4)
    iterator.device = torch.device("cpu")
    batches = iterator._ahead(map(view.read, iterator._rows()))
    assert view.batches == []
    seen = []
    for batch in batches:
        seen.append(batch)
        assert len(view.batches) == min(len(seen) + 1, n_batches)
    assert len(seen) == len(iterator) == n_batches
    for ours, read in zip(seen, view.batches, strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours, read, strict=True))
