"""The demo data agree with their README.md, and nothing but the generator reveals the label."""

import hashlib
import io
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Image
from demo_data import MAX_OVERLAP, main, overlap
from PIL import Image as Pillow
from PIL import JpegImagePlugin
from sklearn.metrics import roc_auc_score

from realfake_hf.data.loading import DEMO
from realfake_hf.labels import FAKE, LABEL_NAMES

Row = dict[str, Any]
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return pq.read_table(DEMO).to_pylist()


@pytest.fixture(scope="module")
def pictures(rows: list[Row]) -> list[Pillow.Image]:
    return [Pillow.open(io.BytesIO(row["image"]["bytes"])) for row in rows]


def _meet(one: list[int], other: list[int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _region(row: Row) -> tuple[str, list[int]]:
    photograph, box = row["region"].split(":")
    return photograph, [int(number) for number in box.split(",")]


def test_the_file_is_small_and_contains_about_two_thousand_images(rows: list[Row]) -> None:
    assert DEMO.stat().st_size <= 4_000_000
    assert 1800 <= len(rows) <= 2200


def test_datasets_sees_images_and_named_labels(tmp_path: Path) -> None:
    dataset = Dataset.from_parquet(str(DEMO), cache_dir=str(tmp_path))
    assert dataset.column_names == [
        "image", "label", "content", "generator", "source", "id", "sha256", "split", "region", "box",
    ]  # fmt: skip
    assert dataset.features["image"] == Image()
    assert dataset.features["label"] == ClassLabel(names=list(LABEL_NAMES))
    assert dataset[0]["image"].size == (32, 32)


def test_the_splits_have_seventy_ten_and_twenty_percent(rows: list[Row]) -> None:
    counts = Counter(row["split"] for row in rows)
    shares = [counts[split] / len(rows) for split in SPLITS]
    assert set(counts) == set(SPLITS)
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)


def test_half_of_each_split_and_of_each_photograph_is_fake(rows: list[Row]) -> None:
    groups = defaultdict(list)
    for row in rows:
        groups[row["split"], row["content"]].append(row["label"] == FAKE)
    assert {split for split, _ in groups} == set(SPLITS)
    assert all(2 * sum(is_fake) == len(is_fake) for is_fake in groups.values())


def test_only_fakes_have_a_generator(rows: list[Row]) -> None:
    for row in rows:
        assert row["generator"] == ("demo-autoencoder" if row["label"] == FAKE else None)
    assert {row["source"] for row in rows} == {"demo"}


def test_regions_of_a_photograph_are_disjoint_and_each_has_one_split(rows: list[Row]) -> None:
    splits = defaultdict(set)
    for row in rows:
        splits[row["region"]].add(row["split"])
    regions = [_region(row) for row in {row["region"]: row for row in rows}.values()]
    assert all(len(names) == 1 for names in splits.values())
    assert not any(one[0] == other[0] and _meet(one[1], other[1]) for one, other in combinations(regions, 2))


def test_every_window_is_a_square_inside_its_region(rows: list[Row]) -> None:
    for row in rows:
        photograph, (left, top, right, bottom) = _region(row)
        x, y, x_end, y_end = row["box"]
        assert photograph == row["content"]
        assert x_end - x == y_end - y >= 32
        assert left <= x < x_end <= right
        assert top <= y < y_end <= bottom


def test_no_window_of_one_split_touches_a_pixel_of_another_split(rows: list[Row]) -> None:
    for photograph in {row["content"] for row in rows}:
        boxes = {
            split: [r["box"] for r in rows if (r["content"], r["split"]) == (photograph, split)] for split in SPLITS
        }
        assert all(boxes.values())
        for one, other in combinations(SPLITS, 2):
            assert not any(_meet(a, b) for a in boxes[one] for b in boxes[other])


def test_no_window_is_used_twice(rows: list[Row]) -> None:
    assert len({(row["content"], *row["box"]) for row in rows}) == len(rows)


def test_windows_of_a_photograph_share_less_than_half_of_their_area(rows: list[Row]) -> None:
    for photograph in {row["content"] for row in rows}:
        boxes = [row["box"] for row in rows if row["content"] == photograph]
        assert max(overlap(one, other) for one, other in combinations(boxes, 2)) <= MAX_OVERLAP < 0.5


def test_window_sizes_do_not_reveal_the_label(rows: list[Row]) -> None:
    sides = [row["box"][2] - row["box"][0] for row in rows]
    is_fake = [row["label"] == FAKE for row in rows]
    assert abs(roc_auc_score(is_fake, sides) - 0.5) < 0.03


def test_every_image_is_a_32_pixel_rgb_jpeg_without_metadata(rows: list[Row], pictures: list[Pillow.Image]) -> None:
    for row, picture in zip(rows, pictures, strict=True):
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (32, 32))
        assert row["image"]["path"] is None
        assert not picture.getexif()
        assert not {"icc_profile", "comment", "exif"} & set(picture.info)


def test_both_labels_have_the_same_jpeg_settings(pictures: list[Pillow.Image]) -> None:
    assert {JpegImagePlugin.get_sampling(picture) for picture in pictures} == {2}  # 4:2:0
    assert len({str(picture.quantization) for picture in pictures}) == 1


def test_hashes_are_those_of_the_decoded_images_and_unique(rows: list[Row], pictures: list[Pillow.Image]) -> None:
    hashes = [hashlib.sha256(b"32x32:" + picture.convert("RGB").tobytes()).hexdigest() for picture in pictures]
    assert hashes == [row["sha256"] for row in rows]
    assert len(set(hashes)) == len(rows)


def test_ids_are_opaque_and_sorted(rows: list[Row]) -> None:
    ids = [row["id"] for row in rows]
    assert ids == sorted(set(ids))
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in ids)


def test_the_row_order_does_not_reveal_the_label(rows: list[Row]) -> None:
    is_fake = [row["label"] == FAKE for row in rows]
    assert abs(roc_auc_score(is_fake, np.arange(len(rows))) - 0.5) < 0.05


def test_the_readme_states_the_counts_of_every_photograph(rows: list[Row]) -> None:
    document = DEMO.with_name("README.md").read_text(encoding="utf-8")
    counts = Counter((row["content"], row["split"]) for row in rows)
    totals = Counter(row["split"] for row in rows)
    for photograph in {row["content"] for row in rows}:
        assert f"| {photograph} | {' | '.join(str(counts[photograph, split]) for split in SPLITS)} |" in document
    assert f"| all | {' | '.join(str(totals[split]) for split in SPLITS)} |" in document


def test_an_existing_file_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "demo.parquet"
    file.touch()
    assert main(["--output_file", str(file)]) == 1
    assert f"{file} exists" in capsys.readouterr().err
    assert file.stat().st_size == 0


@pytest.mark.slow
def test_the_same_seed_makes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    files = [tmp_path / f"{index}.parquet" for index in range(3)]
    for file, seed in zip(files, ("0", "0", "1"), strict=True):
        words = ["--output_file", str(file), "--seed", seed, "--num_images", "240", "--num_steps", "3"]
        assert main(words) == 0
    one, again, other = (file.read_bytes() for file in files)
    assert one == again
    assert one != other
