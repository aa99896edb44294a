"""Re-encoded and resized copies are found, different pictures are not, and the counts are those of all pairs."""

import io

import imagehash
import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from realfake_hf.data.duplicates import (
    THRESHOLD,
    ImageHashes,
    Pair,
    find_near_duplicates,
    hash_images,
    perceptual_hash,
)
from realfake_hf.data.ingest import SCHEMA


def texture(seed, size=64):
    """A cloud: noise of 8 x 8, drawn large."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def saved(picture, **settings):
    buffer = io.BytesIO()
    picture.save(buffer, **settings)
    return Image.open(buffer)


def distance(one, two):
    return (perceptual_hash(one) ^ perceptual_hash(two)).bit_count()


def hashed(values, name="set"):
    ids = [f"{name}{place}" for place in range(len(values))]
    return ImageHashes(name, np.array(values, dtype=np.uint64), np.array(ids), np.arange(len(values)) % 2 == 1)


def test_the_hash_is_that_of_imagehash():
    assert f"{perceptual_hash(texture(0)):016x}" == str(imagehash.phash(texture(0)))


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_that_was_encoded_anew_or_slightly_resized_is_close(seed):
    picture = texture(seed)
    assert distance(picture, saved(picture, format="JPEG", quality=75)) <= THRESHOLD
    assert distance(picture, picture.resize((58, 58), Image.Resampling.LANCZOS)) <= THRESHOLD


def test_different_pictures_are_far():
    pictures = hashed([perceptual_hash(texture(seed)) for seed in range(100)], "first")
    others = hashed([perceptual_hash(texture(seed)) for seed in range(100, 200)], "second")
    assert find_near_duplicates(pictures, others).pairs == 0


@settings(deadline=None)
@given(
    one=st.lists(st.sampled_from([0, 1, 3, 7, 2**63, 2**64 - 1]), max_size=12),
    two=st.lists(st.sampled_from([0, 1, 12, 2**63 + 1, 2**64 - 2]), max_size=12),
    threshold=st.integers(0, 4),
)
def test_the_counts_are_those_of_looking_at_all_pairs(one, two, threshold):
    found = find_near_duplicates(hashed(one), hashed(two), threshold=threshold)
    pairs = [(i, j, (a ^ b).bit_count()) for i, a in enumerate(one) for j, b in enumerate(two)]
    close = [pair for pair in pairs if pair[2] <= threshold]
    assert found.pairs == len(close) == sum(found.by_distance)
    assert found.by_distance == tuple(sum(d == at for *_, d in close) for at in range(threshold + 1))
    assert found.across_labels == sum(i % 2 != j % 2 for i, j, _ in close)
    assert found.first_found == len({i for i, *_ in close})
    assert found.second_found == len({j for _, j, _ in close})


def test_sets_larger_than_a_tile_are_searched_whole():
    generator = np.random.default_rng(0)
    one, two = (generator.integers(0, 2**64, size, dtype=np.uint64) for size in (100, 9000))
    two[[0, 5000, 8999]] = one[[40, 99, 0]] ^ np.array([0, 1, 3], dtype=np.uint64)
    found = find_near_duplicates(hashed(one, "a"), hashed(two, "b"), threshold=2)
    assert found.examples == (Pair("a40", "b0", 0), Pair("a99", "b5000", 1), Pair("a0", "b8999", 2))


def test_the_closest_examples_are_named_and_no_more_than_asked_for():
    found = find_near_duplicates(hashed([0], "a"), hashed([7, 1, 0, 3], "b"), examples=2)
    assert found.examples == (Pair("a0", "b2", 0), Pair("a0", "b1", 1))
    assert found.to_dict()["examples"][0] == {"first": "a0", "second": "b2", "distance": 0}


def test_ten_thousand_copies_are_counted_at_once():
    assert find_near_duplicates(hashed([5] * 10_000), hashed([4] * 10_000)).pairs == 10**8


def test_the_counts_render_as_a_table_with_their_n():
    table = find_near_duplicates(hashed([0] * 1200, "train"), hashed([1], "test")).to_markdown()
    assert table.splitlines()[:3] == [
        "| near-duplicates of train and test | count |",
        "|---|--:|",
        "| pairs that differ in at most 4 of 64 bits | 1,200 |",
    ]
    assert "| pictures of train (n = 1,200) with one in test | 1,200 |" in table


def test_a_split_is_hashed_row_by_row():
    rows = [
        {
            "image": texture(n),
            "label": n % 2,
            "content": None,
            "generator": None,
            "source": "s",
            "id": f"{n}",
            "sha256": "",
        }
        for n in range(3)
    ]
    found = hash_images(Dataset.from_list(rows, features=SCHEMA), name="train")
    assert found.hashes.tolist() == [perceptual_hash(texture(n)) for n in range(3)]
    assert (found.name, found.ids.tolist(), found.is_fake.tolist()) == ("train", ["0", "1", "2"], [False, True, False])


@pytest.mark.parametrize("threshold", [-1, 17])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(
        ValueError, match=rf"wanted a threshold from 0 to 16 bits; found {threshold}\. Give one near 4\."
    ):
        find_near_duplicates(hashed([0]), hashed([0]), threshold=threshold)
