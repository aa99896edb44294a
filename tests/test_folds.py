"""A fold that a source states is the validation split, with each group on one side."""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value

import train
from realfake_hf.data.loading import load_images
from realfake_hf.data.shards import main as write_shards
from realfake_hf.data.splits import Fold, FoldArguments
from realfake_hf.environment import split_fingerprint

PictureBytes = Callable[..., bytes]
MakeFolder = Callable[..., Path]
Row = Mapping[str, str]

COLUMNS = ("file_name", "label", "group", "fold")
ROWS = [  # two folds of two groups each; the last image of each fold has no known owner
    ("a.png", "real", "ann", "0"), ("b.png", "fake", "ann", "0"), ("c.png", "real", "bob", "0"),
    ("d.png", "fake", "", "0"), ("e.png", "real", "cy", "1"), ("f.png", "fake", "dee", "1"),
    ("g.png", "fake", "dee", "1"), ("h.png", "real", "", "1"),
]  # fmt: skip


def table(rows: Sequence[Sequence[str]], columns: Sequence[str] = COLUMNS) -> bytes:
    return "\n".join(",".join(row) for row in (columns, *rows)).encode()


@pytest.fixture
def make_source(make_folder: MakeFolder, picture_bytes: PictureBytes) -> Callable[..., Path]:
    """Make a folder of images with a metadata.csv."""

    def make(rows: Sequence[Sequence[str]] = ROWS, columns: Sequence[str] = COLUMNS) -> Path:
        files = {row[0]: picture_bytes(row[0]) for row in rows}
        return make_folder({**files, "metadata.csv": table(rows, columns)})

    return make


def refused(source: Path, column: str = "fold", value: str = "1") -> str:
    """Return the error of a source whose images cannot be decoded, to show that none was."""
    for file in source.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(ValueError, match="expected") as error:
        load_images(source, fold=Fold(column, value))
    return str(error.value)


def test_groups_are_read_and_empty_ones_are_unknown(make_source: Callable[..., Path]) -> None:
    groups = load_images(make_source())["train"]["group"][:]
    assert Counter(groups) == {"ann": 2, "dee": 2, "bob": 1, "cy": 1, None: 2}


def test_a_fold_is_the_validation_split_and_the_rows_are_those_without_folds(make_source: Callable[..., Path]) -> None:
    source = make_source()
    whole = load_images(source)["train"].to_list()
    images = load_images(source, fold=Fold("fold", "1"))
    assert {split: len(rows) for split, rows in images.items()} == {"train": 4, "validation": 4}
    assert {*images["validation"]["group"][:]} == {"cy", "dee", None}
    both = [row for rows in images.values() for row in rows.to_list()]
    assert sorted(both, key=lambda row: row["id"]) == whole


def test_folds_and_groups_are_read_from_parquet_and_metadata_jsonl(
    make_folder: MakeFolder, picture_bytes: PictureBytes, tmp_path: Path
) -> None:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    lines = "\n".join(json.dumps({**row, "fold": int(row["fold"])}) for row in rows)
    folder = make_folder({**{row[0]: picture_bytes(row[0]) for row in ROWS}, "metadata.jsonl": lines.encode()})
    kinds = {"image": Image(), "label": Value("string"), "group": Value("string"), "Part": Value("int64")}
    stored = [
        {"image": {"bytes": picture_bytes(row["file_name"]), "path": None}, "label": row["label"],
         "group": row["group"] or None, "Part": int(row["fold"])}
        for row in rows
    ]  # fmt: skip
    Dataset.from_list(stored, features=Features(kinds)).to_parquet(tmp_path / "set.parquet")
    listed = load_images(folder, fold=Fold("fold", "0"))
    columns = load_images(tmp_path / "set.parquet", fold=Fold("Part", "0"))
    for split in ("train", "validation"):
        one, two = (
            sorted(zip(images[split]["sha256"][:], map(str, images[split]["group"][:]), strict=True))
            for images in (listed, columns)
        )
        assert len(one) == 4
        assert one == two


def test_a_test_split_of_the_source_needs_no_fold(make_source: Callable[..., Path]) -> None:
    rows = [(*row, "train") for row in ROWS] + [
        ("x.png", "real", "eve", "", "test"),
        ("y.png", "fake", "", "", "test"),
    ]
    images = load_images(make_source(rows, (*COLUMNS, "split")), fold=Fold("fold", "0"))
    assert {split: len(rows) for split, rows in images.items()} == {"train": 4, "validation": 4, "test": 2}


def test_a_group_on_both_sides_is_refused_by_name(make_source: Callable[..., Path]) -> None:
    message = refused(make_source([*ROWS, ("i.png", "real", "dee", "0")]))
    assert "the fold '1' or outside" in message
    assert "found 1 on both sides, such as 'dee', also in '0'" in message


def test_a_missing_column_is_refused_by_name(make_source: Callable[..., Path]) -> None:
    assert "column 'part'; found no such column" in refused(make_source(), "part")


def test_a_missing_fold_is_refused_with_the_image(make_source: Callable[..., Path]) -> None:
    assert "none for 1 of 9, such as 'i.png'" in refused(make_source([*ROWS, ("i.png", "real", "gus", "")]))


def test_a_fold_without_images_is_refused_with_those_that_have_some(make_source: Callable[..., Path]) -> None:
    message = refused(make_source(), value="7")
    assert "'7'" in message
    assert "0, 1" in message


@pytest.mark.parametrize(
    ("folds", "found"),
    [("RRRFRRRR", "in the fold 'F' of pictures; found 0 real and 1 fake"),
     ("FRFFFRRF", "outside of the fold 'F' of pictures; found 0 real and 3 fake")],
)  # fmt: skip
def test_a_fold_of_one_label_is_refused_on_either_side(
    make_source: Callable[..., Path], folds: str, found: str
) -> None:
    rows = [(name, label, "", fold) for (name, label, *_), fold in zip(ROWS, folds, strict=True)]
    assert found in refused(make_source(rows), value="F")


def test_a_source_with_its_own_validation_split_is_refused(make_source: Callable[..., Path]) -> None:
    rows = [(*row, "val" if row[3] == "0" else "train") for row in ROWS]
    assert "without a validation split" in refused(make_source(rows, (*COLUMNS, "split")))


@pytest.mark.parametrize("given", [{"fold_column": "fold"}, {"validation_fold": "0"}])
def test_one_flag_of_a_fold_alone_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected --fold_column and --validation_fold; found one"):
        FoldArguments(**given)


def test_shards_keep_the_fold_as_their_validation_split(make_source: Callable[..., Path], tmp_path: Path) -> None:
    words = ["--fold_column", "fold", "--validation_fold", "1", "--output_dir", str(tmp_path / "shards")]
    assert write_shards(["--data", str(make_source()), *words]) == 0
    images = load_images(tmp_path / "shards")
    assert {*images["train"]["group"][:]} == {"ann", "bob", None}
    assert {*images["validation"]["group"][:]} == {"cy", "dee", None}


@pytest.fixture
def wild(shared_data: Path, tmp_path: Path) -> Path:
    """A metadata.csv image folder with every ninth picture of the real set."""
    with (shared_data / "wild/metadata.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    rows = [{"file_name": f"{row['name']}.jpg", **row} for row in listed[::9]]
    folder = tmp_path / "wild"
    folder.mkdir()
    for row in rows:
        shutil.copy(shared_data / "wild/whole" / row["file_name"], folder)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.slow
def test_a_training_on_a_fold_of_the_real_set_validates_on_other_owners(wild: Path, tmp_path: Path) -> None:
    words = ["--data", str(wild), "--fold_column", "fold", "--validation_fold", "3", "--balance", "label,group"]
    small = ["--num_filters", "4", "--dense_units", "4", "--num_train_epochs", "1", "--bootstrap_samples", "0"]
    assert train.main([*words, *small, "--output_dir", str(tmp_path / "run")]) == 0
    with (wild / "metadata.csv").open(encoding="utf-8", newline="") as file:
        owners = {row["group"] for row in csv.DictReader(file) if row["fold"] == "3"}
    images = load_images(wild, fold=Fold("fold", "3"))
    assert set(images["validation"]["group"][:]) == owners
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["data"]["validation"] == split_fingerprint(images["validation"])
    assert not owners & set(images["train"]["group"][:])
