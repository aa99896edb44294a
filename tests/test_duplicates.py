"""Exact and near-duplicates are counted in pairs, as by comparing all pairs of images."""

import io
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, product
from pathlib import Path

import imagehash
import numpy as np
import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from realfake_hf.data import duplicates
from realfake_hf.data.decoding import pixel_hash
from realfake_hf.data.duplicates import (
    THRESHOLD,
    ImageHashes,
    NearDuplicates,
    Pair,
    far_from,
    find_duplicates,
    find_near_duplicates,
    hash_images,
    leak_free_mask,
    leaks_by_split,
    near_duplicate_free_mask,
    perceptual_hash,
)
from realfake_hf.data.loading import SCHEMA, load_images
from realfake_hf.data.splits import add_missing_splits
from realfake_hf.estimate import from_plain, to_plain
from realfake_hf.experiments.data_audit import main

Row = tuple[str, int, str | None, str]  # split, label, content, sha256


def data_set(rows: list[Row]) -> DatasetDict:
    splits = sorted({row[0] for row in rows})
    columns = {split: list(zip(*(row[1:] for row in rows if row[0] == split), strict=True)) for split in splits}
    return DatasetDict(
        {
            split: Dataset.from_dict({"label": labels, "content": contents, "sha256": digests})
            for split, (labels, contents, digests) in columns.items()
        }
    )


def test_pairs_are_counted_within_and_across_splits_and_labels() -> None:
    report = find_duplicates(
        data_set(
            [
                ("train", 1, "frog", "a"), ("train", 1, "frog", "a"), ("test", 1, "frog", "a"),
                ("train", 0, "cat", "b"), ("test", 1, "cat", "b"), ("test", 0, None, "c"), ("test", 0, None, "c"),
                ("train", 0, "dog", "d"), ("test", 1, "dog", "e"),
            ]
        )
    )  # fmt: skip
    assert report.n == {"test": 5, "train": 4}
    assert report.pairs == 5
    assert report.within == {"train": 1, "test": 1}
    assert report.across == {"test-train": 3}
    assert report.across_labels == 1
    assert report.leaked == 2
    assert report.by_content == {"FAKE frog": 3, "REAL unknown": 1, "mixed": 1}


rows_of_all_kinds = st.lists(
    st.tuples(
        st.sampled_from(["train", "validation", "test"]), st.integers(0, 1), st.sampled_from([None, "frog"]),
        st.sampled_from("abcdef"),
    ),
    min_size=1,
    max_size=40,
)  # fmt: skip


@given(rows=rows_of_all_kinds)
@settings(max_examples=60)
def test_counts_of_exact_duplicates_agree_with_comparing_all_pairs(rows: list[Row]) -> None:
    report = find_duplicates(data_set(rows))
    pairs = [(a, b) for a, b in combinations(rows, 2) if a[3] == b[3]]
    assert report.pairs == len(pairs) == sum(report.by_content.values())
    assert report.within == {s: sum(a[0] == b[0] == s for a, b in pairs) for s in report.n}
    across = Counter("-".join(sorted({a[0], b[0]})) for a, b in pairs if a[0] != b[0])
    assert {name: count for name, count in report.across.items() if count} == across
    assert report.across_labels == sum(a[1] != b[1] for a, b in pairs)


def test_ten_thousand_copies_of_an_image_are_counted_quickly() -> None:
    start = time.perf_counter()
    report = find_duplicates(data_set([("train", n % 2, "frog", "a") for n in range(10_000)]))
    assert (report.pairs, report.across_labels) == (49_995_000, 25_000_000)
    assert time.perf_counter() - start < 5  # seconds


def test_the_leak_free_mask_marks_test_images_that_are_in_no_other_split() -> None:
    rows: list[Row] = [("test", 0, None, name) for name in "abcd"]
    images = data_set([*rows, ("train", 0, None, "a"), ("validation", 0, None, "c")])
    assert leak_free_mask(images).tolist() == [False, True, False, True]


def test_leaks_are_counted_by_split() -> None:
    rows: list[Row] = [("test", 0, None, name) for name in "aabcd"]
    images = data_set([*rows, *[("train", 0, None, name) for name in "aacx"], ("validation", 0, None, "c")])
    assert leaks_by_split(images) == {"train": 3, "validation": 1}


def test_the_audit_says_how_many_copies_lie_in_train_and_in_the_drawn_validation_split(tmp_path: Path) -> None:
    for split, number in product(("train", "test"), range(40)):
        seed = number if split == "train" else number + 20  # the first twenty test images are in train
        for label, offset in (("real", 0), ("fake", 1000)):
            file = tmp_path / "data" / split / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            texture(offset + seed).save(file)
    output = tmp_path / "audit.json"
    assert main(["--data", str(tmp_path / "data"), "--output_file", str(output)]) == 0
    kept = json.loads(output.read_text())
    splits = add_missing_splits(load_images(tmp_path / "data"))
    shared = {split: set(splits["test"]["sha256"][:]) & set(splits[split]["sha256"][:]) for split in splits}
    assert kept["leaked"] == 40
    assert kept["leaked_to"] == {"train": len(shared["train"]), "validation": len(shared["validation"])}
    assert 0 < kept["leaked_to"]["validation"] < kept["leaked_to"]["train"]
    assert sum(kept["leaked_to"].values()) == 40
    text = output.with_suffix(".md").read_text()
    assert f"| test images also in validation, as split for training | {kept['leaked_to']['validation']} |" in text


def test_without_a_test_split_nothing_leaks() -> None:
    assert find_duplicates(data_set([("train", 0, None, "a"), ("train", 0, None, "a")])).leaked == 0


def test_the_report_renders_as_a_table_with_its_n() -> None:
    table = find_duplicates(data_set([("train", 0, "x", "a")] * 1_200 + [("test", 0, "x", "a")])).to_markdown()
    assert table.splitlines()[:3] == ["| exact duplicates | count |", "|---|--:|", "| equal pairs | 720,600 |"]
    assert "| within train (n = 1,200) | 719,400 |" in table
    assert "| between test and train | 1,200 |" in table
    assert "| test images also in another split | 1 |" in table


def test_the_command_prints_the_table_and_writes_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", "demo", "--output_file", str(tmp_path / "new" / "audit.json")]) == 0
    kept = json.loads((tmp_path / "new" / "audit.json").read_text())
    assert kept["pairs"] == 0
    assert "| equal pairs | 0 |" in capsys.readouterr().out


def test_the_command_rejects_an_unknown_source_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", "nowhere", "--output_file", str(tmp_path / "new" / "audit.json")]) == 1
    assert "found nothing at" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def texture(seed, size=64):
    """Upscaled 8 x 8 noise."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def saved(image, **settings):
    buffer = io.BytesIO()
    image.save(buffer, **settings)
    return Image.open(buffer)


def distance(one, two):
    return (perceptual_hash(one) ^ perceptual_hash(two)).bit_count()


def hashed(values, name="set"):
    ids = [f"{name}{place}" for place in range(len(values))]
    return ImageHashes(name, np.array(values, dtype=np.uint64), np.array(ids), np.arange(len(values)) % 2 == 1)


def test_the_hash_is_that_of_imagehash():
    assert f"{perceptual_hash(texture(0)):016x}" == str(imagehash.phash(texture(0)))


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_that_was_re_encoded_or_slightly_resized_is_close(seed):
    image = texture(seed)
    assert distance(image, saved(image, format="JPEG", quality=75)) <= THRESHOLD
    assert distance(image, image.resize((58, 58), Image.Resampling.LANCZOS)) <= THRESHOLD


def test_different_images_are_far():
    images = hashed([perceptual_hash(texture(seed)) for seed in range(100)], "first")
    others = hashed([perceptual_hash(texture(seed)) for seed in range(100, 200)], "second")
    assert find_near_duplicates(images, others).pairs == 0


@given(
    one=st.lists(st.sampled_from([0, 1, 3, 7, 2**63, 2**64 - 1]), max_size=12),
    two=st.lists(st.sampled_from([0, 1, 12, 2**63 + 1, 2**64 - 2]), max_size=12),
    threshold=st.integers(0, 4),
)
def test_counts_of_near_duplicates_agree_with_comparing_all_pairs(one, two, threshold):
    found = find_near_duplicates(hashed(one), hashed(two), threshold=threshold)
    pairs = [(i, j, (a ^ b).bit_count()) for i, a in enumerate(one) for j, b in enumerate(two)]
    close = [pair for pair in pairs if pair[2] <= threshold]
    assert found.pairs == len(close) == sum(found.by_distance)
    assert found.by_distance == tuple(sum(d == at for *_, d in close) for at in range(threshold + 1))
    assert found.across_labels == sum(i % 2 != j % 2 for i, j, _ in close)
    assert found.first_found == len({i for i, *_ in close})
    assert found.second_found == len({j for _, j, _ in close})


@given(
    one=st.lists(st.sampled_from([0, 1, 3, 7, 2**63, 2**64 - 1]), min_size=1, max_size=12),
    two=st.lists(st.sampled_from([0, 1, 12, 2**63 + 1, 2**64 - 2]), max_size=12),
    threshold=st.integers(0, 4),
)
def test_a_hash_is_far_from_others_if_all_differ_in_more_bits(one, two, threshold):
    found = far_from(np.array(one, np.uint64), np.array(two, np.uint64), threshold=threshold)
    assert found.tolist() == [all((a ^ b).bit_count() > threshold for b in two) for a in one]


def rows_of(*images):
    columns = {"content": None, "group": None, "generator": None, "source": "s"}
    return Dataset.from_list(
        [
            {"image": image, "label": n % 2, "id": f"{n}", "sha256": pixel_hash(image.convert("RGB")), **columns}
            for n, image in enumerate(images)
        ],
        features=SCHEMA,
    )


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Three splits with copies and re-encoded copies, and an empty cache."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    copies = [saved(texture(seed), format="JPEG", quality=75) for seed in (1, 2)]
    return DatasetDict({
        "train": rows_of(texture(0), copies[0], texture(4)),
        "validation": rows_of(copies[1]),
        "test": rows_of(texture(0), texture(1), texture(2), texture(3)),
    })  # fmt: skip


@pytest.fixture
def hashed_splits(monkeypatch):
    """The names of the splits that are hashed, in order."""
    names = []

    def hash_and_record(rows, *, name):
        names.append(name)
        return hash_images(rows, name=name)

    monkeypatch.setattr(duplicates, "hash_images", hash_and_record)
    return names


def test_an_image_with_a_re_encoded_copy_in_another_split_is_leak_free_but_has_a_near_duplicate(images):
    assert leak_free_mask(images).tolist() == [False, True, True, True]
    assert near_duplicate_free_mask(images).tolist() == [False, False, False, True]


def test_concurrent_and_later_callers_read_the_mask_of_the_first(images, hashed_splits):
    with ThreadPoolExecutor(2) as pool:
        masks = [*pool.map(near_duplicate_free_mask, [images, images]), near_duplicate_free_mask(images)]
    assert hashed_splits == ["train", "validation", "test"]
    assert [mask.tolist() for mask in masks] == 3 * [[False, False, False, True]]


def test_another_division_into_train_and_validation_is_not_hashed_again(images, hashed_splits):
    before = near_duplicate_free_mask(images)
    train = images["train"]
    rest = concatenate_datasets([images["validation"], train.select([2, 1])])
    again = near_duplicate_free_mask({"train": rest, "validation": train.select([0]), "test": images["test"]})
    assert hashed_splits == ["train", "validation", "test"]
    assert again.tolist() == before.tolist()


def test_another_threshold_or_other_images_are_hashed_again(images, hashed_splits, monkeypatch):
    near_duplicate_free_mask(images)
    backwards = DatasetDict({**images, "test": images["test"].select([3, 2, 1, 0])})
    assert near_duplicate_free_mask(backwards).tolist() == [True, False, False, False]
    fewer = DatasetDict({**images, "train": images["train"].select([1, 2])})
    assert near_duplicate_free_mask(fewer).tolist() == [True, False, False, True]
    monkeypatch.setattr(duplicates, "THRESHOLD", duplicates.HASH_BITS)
    assert near_duplicate_free_mask(images).tolist() == [False] * 4
    assert hashed_splits == 4 * ["train", "validation", "test"]


DAMAGES = {
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "changed": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\0"),
    "with a damaged checksum": lambda file: file.with_suffix(".json").write_text("{"),
    "missing": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_missing_mask_is_computed_again(images, hashed_splits, tmp_path, damage):
    before = near_duplicate_free_mask(images)
    [file] = tmp_path.glob("realfake-duplicates/*.npy")
    damage(file)
    for _ in range(2):
        assert near_duplicate_free_mask(images).tolist() == before.tolist()
    assert hashed_splits == 2 * ["train", "validation", "test"]


def test_sets_larger_than_a_tile_are_searched_completely():
    generator = np.random.default_rng(0)
    one, two = (generator.integers(0, 2**64, size, dtype=np.uint64) for size in (100, 9000))
    two[[0, 5000, 8999]] = one[[40, 99, 0]] ^ np.array([0, 1, 3], dtype=np.uint64)
    found = find_near_duplicates(hashed(one, "a"), hashed(two, "b"), threshold=2)
    assert found.examples == (Pair("a40", "b0", 0), Pair("a99", "b5000", 1), Pair("a0", "b8999", 2))


def test_at_most_the_requested_number_of_examples_is_listed_the_closest_first():
    found = find_near_duplicates(hashed([0], "a"), hashed([7, 1, 0, 3], "b"), examples=2)
    assert found.examples == (Pair("a0", "b2", 0), Pair("a0", "b1", 1))
    assert from_plain(NearDuplicates, to_plain(found)) == found


def test_ten_thousand_near_duplicates_are_counted_quickly():
    assert find_near_duplicates(hashed([5] * 10_000), hashed([4] * 10_000)).pairs == 10**8


def test_near_duplicates_render_as_a_table_with_its_n():
    table = find_near_duplicates(hashed([0] * 1200, "train"), hashed([1], "test")).to_markdown()
    assert table.splitlines()[:3] == [
        "| near-duplicates of train and test | count |",
        "|---|--:|",
        "| pairs that differ in at most 4 of 64 bits | 1,200 |",
    ]
    assert "| images of train (n = 1,200) with one in test | 1,200 |" in table


def test_a_split_is_hashed_row_by_row():
    rows = [
        {
            "image": texture(n),
            "label": n % 2,
            "content": None,
            "group": None,
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
def test_a_threshold_out_of_range_is_rejected(threshold):
    with pytest.raises(ValueError, match=f"threshold from 0 to 16 bits; found {threshold}"):
        find_near_duplicates(hashed([0]), hashed([0]), threshold=threshold)
