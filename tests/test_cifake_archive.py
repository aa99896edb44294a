"""The known counts of the real CIFAKE archive and two other data sets below REALFAKE_SHARED."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict, Image

from realfake_hf.data.duplicates import find_duplicates, leak_free_mask
from realfake_hf.data.folders import CIFAKE_CONTENTS
from realfake_hf.data.loading import load_images
from realfake_hf.data.splits import add_missing_splits

pytestmark = pytest.mark.slow

N = {"train": 100_000, "test": 20_000}


@pytest.fixture(scope="module")
def cifake(cifake_archive: Path) -> DatasetDict:
    return load_images(cifake_archive)


@pytest.fixture(scope="module")
def columns(cifake: DatasetDict) -> dict[str, dict[str, np.ndarray]]:
    names = ("id", "label", "content", "generator", "source", "sha256")
    return {split: {name: np.asarray(rows[name][:]) for name in names} for split, rows in cifake.items()}


def test_every_content_of_every_label_has_its_known_count(columns: dict[str, dict[str, np.ndarray]]) -> None:
    for split, of_split in columns.items():
        assert len(of_split["id"]) == N[split]
        counts = Counter(zip(of_split["label"].tolist(), of_split["content"].tolist(), strict=True))
        assert counts == {(label, content): N[split] // 20 for label in (0, 1) for content in CIFAKE_CONTENTS}
        assert set(of_split["source"]) == {"cifake"}
        assert all(
            (label == 0) == (made is None)
            for label, made in zip(of_split["label"], of_split["generator"], strict=True)
        )


def test_the_audit_finds_the_known_duplicates(cifake: DatasetDict) -> None:
    report = find_duplicates(cifake)
    assert report.pairs == 1_336
    assert report.within == {"train": 920, "test": 38}
    assert sum(report.across.values()) == 378
    assert (report.leaked, report.across_labels) == (378, 0)
    assert set(report.by_content) == {"FAKE bird", "FAKE dog", "FAKE frog"}
    assert leak_free_mask(cifake).sum() == 19_622


def test_validation_is_drawn_evenly_from_train_and_shares_no_image_with_it(cifake: DatasetDict) -> None:
    splits = add_missing_splits(cifake, validation_share=0.05, seed=0)
    validation = splits["validation"]
    counts = Counter(zip(validation["label"][:], validation["content"][:], strict=True))
    largest = max(Counter(cifake["train"]["sha256"][:]).values())
    assert len(counts) == 20
    assert all(abs(count - 250) <= largest for count in counts.values())
    assert not set(validation["sha256"][:]) & set(splits["train"]["sha256"][:])
    assert splits["test"]["id"][:] == cifake["test"]["id"][:]


def test_ids_are_unique_sorted_and_reveal_neither_label_nor_content(columns: dict[str, dict[str, np.ndarray]]) -> None:
    for of_split in columns.values():
        ids, labels = of_split["id"], of_split["label"]
        assert ids.tolist() == sorted(set(ids))
        quarters = [part.mean() for part in np.array_split(labels, 4)]
        assert quarters == pytest.approx([0.5] * 4, abs=0.02)
        digits = np.array([[int(digit, 16) for digit in name] for name in ids])
        gaps = digits[labels == 1].mean(axis=0) - digits[labels == 0].mean(axis=0)
        assert np.abs(gaps).max() < 5 * 4.61 * 2 / len(labels) ** 0.5  # 4.61: deviation of a hexadecimal digit
        assert abs(np.mean(labels[1:] == labels[:-1]) - 0.5) < 0.02


def test_rows_contain_no_file_names(cifake: DatasetDict) -> None:
    for rows in cifake.values():
        paths = rows.cast_column("image", Image(decode=False)).with_format("arrow")["image"][:]
        assert paths.combine_chunks().field("path").null_count == len(rows)
        picture = rows[0]["image"]
        assert (picture.size, picture.mode, getattr(picture, "filename", "")) == ((32, 32), "RGB", "")


def test_the_art_data_set_in_the_kaggle_layout_loads_with_all_suffixes_and_modes(shared_data: Path) -> None:
    rows = load_images(shared_data / "second" / "wild-art-kaggle-layout")["train"]
    assert Counter(rows["label"][:]) == {0: 50, 1: 50}
    assert set(rows["content"][:]) == set(rows["generator"][:]) == {None}
    assert {rows[n]["image"].mode for n in range(0, 100, 10)} == {"RGB"}


@pytest.mark.parametrize(
    ("name", "each", "contents", "generators"),
    [
        ("diffusiondb-coco-imagenet", 300, 11, {None, "stable-diffusion-1.x (DiffusionDB part-000001)"}),
        ("progan-lsun", 40, 5, {None, "ProGAN"}),
    ],
)
def test_a_second_data_set_with_metadata_loads(
    shared_data: Path, name: str, each: int, contents: int, generators: set[str | None]
) -> None:
    rows = load_images(shared_data / "second" / name)["train"]
    assert Counter(rows["label"][:]) == {0: each, 1: each}
    assert len(set(rows["content"][:])) == contents
    assert set(rows["generator"][:]) == generators
    assert all((label == 0) == (made is None) for label, made in zip(rows["label"], rows["generator"], strict=True))
