"""Balanced draws."""

from collections import Counter

import numpy as np
import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from realfake_hf.sampling import WeightedRows, balanced_weights, draw_evenly, round_robin, take_evenly


def test_missing_items_of_a_small_group_are_taken_from_the_others():
    taken = take_evenly("aaaaaaaabbbc", 8)
    assert Counter("aaaaaaaabbbc"[position] for position in taken) == {"a": 4, "b": 3, "c": 1}
    assert take_evenly("ab", 5) == [0, 1]


@given(st.lists(st.sampled_from("abc")))
def test_round_robin_orders_all_positions_and_keeps_the_order_of_each_group(groups):
    order = round_robin(groups)
    assert sorted(order) == list(range(len(groups)))
    for group in set(groups):
        positions = [position for position in order if groups[position] == group]
        assert positions == sorted(positions)


def test_a_draw_is_balanced_over_labels_and_then_over_contents():
    is_fake = np.array([True] * 90 + [False] * 10)
    content = ["cat"] * 80 + ["dog"] * 10 + [None] * 10
    rows = draw_evenly(is_fake, content, 16, seed=0)
    assert Counter((bool(is_fake[row]), content[row]) for row in rows) == {
        (True, "cat"): 4,
        (True, "dog"): 4,
        (False, None): 8,
    }
    assert rows.tolist() == sorted(set(rows.tolist()))


def test_a_draw_depends_on_its_seed_alone():
    is_fake, content = np.arange(100) % 2 == 0, [None] * 100
    drawn = [draw_evenly(is_fake, content, 10, seed=seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


class Images(Dataset[int]):
    """Row numbers of which an epoch can be set, as of the images of a training."""

    def __init__(self, n: int = 0) -> None:
        self.n, self.epoch = n, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> int:
        return row


def test_an_image_weighs_one_over_the_root_of_its_group_and_one_without_a_group_is_its_own():
    is_fake = np.array([False] * 9 + [True] * 3)
    groups = ["a"] * 9 + [None, None, "b"]
    weights = balanced_weights(["group"], is_fake, groups)
    np.testing.assert_allclose(weights, np.array([1 / 3] * 9 + [1] * 3) / 6)


def test_both_labels_weigh_the_same_and_keep_the_proportions_of_their_groups():
    is_fake = np.array([False] * 5 + [True])
    weights = balanced_weights(["label", "group"], is_fake, ["a"] * 4 + ["b", "c"])
    np.testing.assert_allclose(weights, [1 / 12] * 4 + [1 / 6, 1 / 2])
    np.testing.assert_allclose(balanced_weights(["label"], is_fake, [None] * 6), [0.1] * 5 + [0.5])


def test_a_weighted_draw_has_the_proportions_of_its_weights():
    rows = list(WeightedRows(np.repeat([0.3, 0.1], 5000) / 2000, Images(), seed=0))
    assert len(rows) == 10_000
    assert sum(row < 5000 for row in rows) / len(rows) == pytest.approx(0.75, abs=0.02)


def test_a_weighted_draw_depends_on_seed_and_epoch_alone():
    images, weights = Images(), np.full(50, 1 / 50)
    first, other_seed = (list(WeightedRows(weights, images, seed=seed)) for seed in (0, 1))
    images.epoch = 1
    later = WeightedRows(weights, images, seed=0)
    assert list(later) == list(later) != first
    images.epoch = 0
    assert list(later) == first != other_seed


def batches(epoch: int, *, processes: int = 1, process: int = 0, skip: int = 0) -> list[list[int]]:
    """The batches of a process in an epoch of a balanced draw, as the Trainer loads them."""
    images = Images(48)
    rows = WeightedRows(np.full(48, 1 / 48), images, seed=0)
    loader = DataLoader(images, batch_size=8 // processes, sampler=rows)
    own = prepare_data_loader(loader, num_processes=processes, process_index=process, put_on_device=False)
    own = skip_first_batches(own, skip) if skip else own
    own.set_epoch(epoch)
    return [batch.tolist() for batch in own]


@pytest.mark.parametrize("skip", [0, 2])
def test_two_processes_share_the_balanced_batches_of_one_also_when_they_resume(skip):
    whole = batches(3)
    first, second = (batches(3, processes=2, process=process, skip=skip) for process in (0, 1))
    assert [a + b for a, b in zip(first, second, strict=True)] == whole[skip:]
    assert whole != batches(0)
