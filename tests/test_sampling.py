"""Balanced draws."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from realfake_hf.data.sampling import draw_evenly, round_robin, take_evenly


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
