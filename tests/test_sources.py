"""Sources as others name and write them: read as meant, or refused; nothing outside of them is opened."""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, NamedSplit, Value
from PIL import Image as Pillow

from realfake_hf.crosseval.datasets import load_dataset
from realfake_hf.data import files
from realfake_hf.data.hub import HubRows, check_training_files
from realfake_hf.data.loading import SCHEMA, find_source, load_images
from realfake_hf.data.shards import main as shards
from realfake_hf.data.splits import add_missing_splits
from realfake_hf.data.streaming import find_shards
from realfake_hf.experiments.data_audit import main as audit
from realfake_hf.labels import LabelArguments, parse_label_words

PictureBytes = Callable[..., bytes]
MakeFolder = Callable[..., Path]
TWO = ("real", "fake")
MEANING = "0=REAL,1=FAKE"


def table(
    picture_bytes: PictureBytes,
    values: Iterable[object] = ("real", "fake"),
    *,
    column: str = "label",
    kind: Any = None,
) -> Dataset:
    """A data set of an image for each value of a label column."""
    values = list(values)
    rows = {"image": [{"bytes": picture_bytes(n), "path": None} for n in range(len(values))], column: values}
    return Dataset.from_dict(rows, features=Features({"image": Image(), column: kind or Value("string")}))


def sizes(images: Mapping[str, Dataset]) -> dict[str, int]:
    return {split: len(rows) for split, rows in images.items()}


# --- splits


@pytest.mark.parametrize(
    "names",
    [
        ("Train.parquet", "Valid.parquet", "Test.parquet"),
        ("data/train-00000-of-00003.parquet", "data/dev-00000-of-00001.parquet", "data/eval-00000-of-00001.parquet"),
        ("training_set/0.parquet", "VAL2017/0.parquet", "test_set/[0] 1.parquet"),
    ],
)
def test_parquet_files_belong_to_the_splits_in_their_names(
    picture_bytes: PictureBytes, tmp_path: Path, names: tuple[str, ...]
) -> None:
    for n, name in enumerate(names):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        table(picture_bytes, ("real", "fake") * (n + 1)).to_parquet(tmp_path / "set" / name)
    assert sizes(load_images(tmp_path / "set")) == {"train": 2, "validation": 4, "test": 6}


def test_a_parquet_file_of_a_test_split_is_not_trained_on(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    table(picture_bytes).to_parquet(tmp_path / "test-00000-of-00003.parquet")
    images = load_images(tmp_path / "test-00000-of-00003.parquet")
    assert sizes(images) == {"test": 2}
    with pytest.raises(ValueError, match="expected a split named train; found"):
        add_missing_splits(images)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train.parquet", "holdout.parquet"), "expected a split named .* found 'holdout'"),
        (("train.parquet", "more.parquet"), "expected a split in the name of every parquet file .* 'more.parquet'"),
        (("train/test.parquet",), "expected one split for each image; found test and train"),
    ],
)
def test_parquet_files_of_unclear_splits_are_refused(
    picture_bytes: PictureBytes, tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        table(picture_bytes).to_parquet(tmp_path / "set" / name)
    with pytest.raises(ValueError, match=message):
        load_images(tmp_path / "set")


def test_a_saved_data_set_keeps_its_splits_or_is_refused(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    rows = table(picture_bytes)
    DatasetDict({"Training": rows, "evaluation": rows}).save_to_disk(tmp_path / "both")
    assert sizes(load_images(tmp_path / "both")) == {"train": 2, "test": 2}
    rows._split = NamedSplit("test[:50%]")
    rows.save_to_disk(tmp_path / "part")
    assert sizes(load_images(tmp_path / "part")) == {"test": 2}
    for splits in ({"train": rows, "holdout": rows}, {"unseen": rows}, {"train_and_test": rows}):
        DatasetDict(splits).save_to_disk(tmp_path / "-".join(splits))
        with pytest.raises(ValueError, match=r"expected a split named train, validation or test in .*; found"):
            load_images(tmp_path / "-".join(splits))


def test_files_of_other_splits_that_datasets_takes_for_training_images_are_refused() -> None:
    here = "hf://datasets/user/test-set@0123"
    fine = ["Train.parquet", "data/part-0.parquet", "train/real/test_1.jpg", "train/test.jpg", "x/val.png"]
    check_training_files((f"{here}/{file}" for file in fine), name="user/test-set")
    for file in ("Test.parquet", "data/Eval.csv", "Validation/real/1.jpg", "holdout/real/1.jpg", "test.zip"):
        with pytest.raises(ValueError, match=r"expected .*; found"):
            check_training_files([f"{here}/{file}"], name="user/test-set")


# --- labels


@pytest.mark.parametrize(
    ("column", "kind", "real", "fake"),
    [
        ("is_ai", Value("bool"), False, True),
        ("is_real", Value("bool"), True, False),
        ("fake", Value("int64"), 0, 1),
        ("isFake", Value("float32"), 0, 1),
        ("is_ai", Value("string"), "0", "1"),
        ("is_fake", ClassLabel(names=["0", "1"]), 0, 1),
        ("target", Value("string"), "by human", "by AI"),
        ("Label", Value("large_string"), "Real_Images", "fake_images"),
        ("kind", ClassLabel(names=["ai_gen", "human"]), 1, 0),
    ],
)
def test_a_label_column_of_certain_meaning_is_read(
    picture_bytes: PictureBytes, column: str, kind: Any, real: object, fake: object
) -> None:
    rows = table(picture_bytes, (fake, real), column=column, kind=kind)
    records = HubRows(DatasetDict({"train": rows}), name="set").records({})
    assert [record.label for record in records] == ["FAKE", "REAL"]


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        ("label", Value("int64"), (0, 1)), ("target", Value("int8"), (0, 1)), ("label", Value("string"), ("0", "1")),
        ("label", ClassLabel(names=["0", "1"]), (0, 1)), ("label", Value("float64"), (0.0, 1.0)),
        ("class", Value("bool"), (False, True)), ("label", Value("string"), ("not_ai", "sdxl")),
        ("label", ClassLabel(names=["real_vs_ai", "x"]), (0, 1)),
    ],
)  # fmt: skip
def test_other_labels_are_refused_until_their_meaning_is_given(
    picture_bytes: PictureBytes, column: str, kind: Any, values: tuple[Any, ...]
) -> None:
    rows = HubRows(DatasetDict({"train": table(picture_bytes, values, column=column, kind=kind)}), name="set")
    with pytest.raises(ValueError, match="--labels 0=REAL,1=FAKE"):
        rows.records({})
    names = kind.names if isinstance(kind, ClassLabel) else [str(value) for value in values]
    words = parse_label_words(f"{names[0]}=FAKE,{names[1]}=REAL")
    assert [record.label for record in rows.records(words)] == ["FAKE", "REAL"]


def test_a_truth_value_is_the_label_where_the_label_column_names_contents(picture_bytes: PictureBytes) -> None:
    rows = table(picture_bytes, (0, 1), kind=ClassLabel(names=["cat", "frog"])).add_column("is_ai", [True, False])
    records = HubRows(DatasetDict({"train": rows}), name="set").records({})
    assert [record.label for record in records] == ["FAKE", "REAL"]


def test_the_meaning_of_words_is_part_of_the_cache(make_folder: MakeFolder) -> None:
    folder = make_folder(["0/a.png", "1/b.png"])
    for _ in range(2):
        one, two = (load_images(folder, labels=words)["train"] for words in (MEANING, "0=FAKE,1=REAL"))
        assert one["id"][:] == two["id"][:]
        assert one["label"][:] == [1 - label for label in two["label"][:]]
    with pytest.raises(ValueError, match="--labels 0=REAL,1=FAKE"):
        load_images(folder)


COMMANDS = {
    "training.arguments": "DataArguments", "explain.arguments": "ExplainArguments",
    "score.arguments": "ScoreArguments",
    "explain_study.arguments": "StudyArguments", "crosseval.arguments": "CrossevalArguments",
    "data.shards": "ShardArguments", "experiments.data_audit": "AuditArguments", "hub.__main__": "PublishArguments",
    "training.posthoc": "FamiliarityArguments OperatingPointArguments", "experiments.transfer": "TransferArguments",
}  # fmt: skip


def test_every_command_that_reads_a_source_has_the_flag_and_checks_it() -> None:
    for module, names in COMMANDS.items():
        for name in names.split():
            kind = getattr(import_module(f"realfake_hf.{module}"), name)
            assert issubclass(kind, LabelArguments)
            needed = {field.name: "x" for field in fields(kind) if field.default is field.default_factory is MISSING}
            with pytest.raises(ValueError, match=r"expected --labels .*; found '0=human'"):
                kind(**needed, labels="0=human")


@pytest.mark.slow
def test_commands_read_a_source_whose_words_are_given(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder([f"{split}/{label}/{n}.png" for split in ("train", "test") for label in "01" for n in "01"])
    given = ["--data", str(folder), "--labels", MEANING]
    assert shards([*given[:2], "--output_dir", str(tmp_path / "shards")]) == 1
    assert "--labels 0=REAL,1=FAKE" in capsys.readouterr().err
    assert shards([*given, "--output_dir", str(tmp_path / "shards")]) == 0
    assert audit([*given, "--output_file", str(tmp_path / "audit.json")]) == 0
    assert {len(split) for split in find_shards(str(tmp_path / "shards")).values()} == {4}
    dataset = load_dataset("mine", str(folder), labels=MEANING, seed=0)
    assert (dataset.split, sorted(dataset.is_fake.tolist())) == ("test", [False, False, True, True])
    assert len(dataset.file_properties(8, seed=0).is_fake) == 8


# --- files


def test_metadata_jsonl_label_images_without_a_suffix(make_folder: MakeFolder, picture_bytes: PictureBytes) -> None:
    rows = [{"file_name": name, "is_ai": name == "0af3", "split": "dev"} for name in ("0af3", "v2.1080", "été #1?.x")]
    table = "\n".join(json.dumps(row) for row in rows).encode()
    pictures = {str(row["file_name"]): picture_bytes(n) for n, row in enumerate(rows)}
    images = load_images(make_folder({**pictures, "metadata.jsonl": table, "notes.bin": b"-"}))
    assert sizes(images) == {"validation": 3}
    assert sorted(images["validation"]["label"][:]) == [0, 0, 1]


def test_names_that_are_not_utf8_are_loaded(
    make_folder: MakeFolder, picture_bytes: PictureBytes, caplog: pytest.LogCaptureFixture
) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    names = [f"{label}/{odd}{n}/{n}{odd}.png" for label in ("real", "fake") for n in range(60)]
    pictures = {name: picture_bytes(n) for n, name in enumerate(names)}
    folder = make_folder(pictures, f"set {odd}")
    (folder / f"real/{odd}.png").write_bytes(b"no image")
    images = load_images(folder)
    assert sizes(images) == {"train": 120}
    assert set(images["train"]["source"][:]) == {"set ��"}
    assert len(set(images["train"]["content"][:])) == 60
    assert "skipped 1 unreadable images" in caplog.text
    assert r"real/\xff\xfe.png" in caplog.text
    assert find_source(folder).fingerprint != find_source(make_folder(pictures, "other")).fingerprint


def zip_of(path: Path, contents: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def test_a_small_zip_with_a_huge_table_is_refused(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    pictures = {name: picture_bytes(name) for name in ("real/a.png", "fake/b.png")}
    bomb = zip_of(tmp_path / "set.zip", {**pictures, "metadata.csv": b"file_name,label\n" + bytes(65 * 2**20)})
    assert bomb.stat().st_size < 2**18
    with pytest.raises(ValueError, match=r"expected tables of at most 67,108,864 bytes; found .* metadata\.csv"):
        load_images(bomb)


def test_a_zip_with_too_many_entries_is_refused(
    picture_bytes: PictureBytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zip_of(tmp_path / "set.zip", {f"{name}.png": picture_bytes(name) for name in ("real/a", "fake/b")})
    monkeypatch.setattr(files, "_MAX_DIRECTORY", 112)
    assert sizes(load_images(archive)) == {"train": 2}
    monkeypatch.setattr(files, "_MAX_DIRECTORY", 111)
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", None)
    with pytest.raises(ValueError, match=r"its list of files has 112 bytes; the limit is 111"):
        find_source(archive).records()


def test_archives_within_archives_are_ignored(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    pictures = {name: picture_bytes(name) for name in ("real/a.png", "fake/b.png")}
    inner = zip_of(tmp_path / "inner.zip", pictures).read_bytes()
    outer = zip_of(tmp_path / "outer.zip", {**pictures, "real/inner.zip": inner, "fake/inner.tar.gz": inner})
    assert sizes(load_images(outer)) == {"train": 2}


# --- rows that name files


@pytest.fixture
def stranger(picture_bytes: PictureBytes, tmp_path: Path) -> Path:
    """A folder of parquet shards in our schema, one row of which names a local image and one an address."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture_bytes("secret"))
    images = [
        *({"bytes": picture_bytes(n), "path": None} for n in range(4)),
        {"bytes": None, "path": str(secret)},
        {"bytes": None, "path": "http://127.0.0.1:9/x.png"},
    ]
    text = [f"{n:016x}" for n in range(6)]
    rows = {**dict.fromkeys(SCHEMA, text), "image": images, "label": [0, 1] * 3}
    (tmp_path / "shards").mkdir()
    for split in ("train", "validation", "test"):
        table = pa.Table.from_pydict(rows, schema=SCHEMA.arrow_schema)
        pq.write_table(table, tmp_path / f"shards/{split}-00000-of-00001.parquet")
    return tmp_path / "shards"


def test_a_row_that_names_a_file_is_unreadable(
    stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pillow, "open", _refuse_paths(Pillow.open))
    with pytest.raises(ValueError, match=r"at most 1% unreadable .* found 6 of 18, such as .*only the path .*secret"):
        load_images(stranger)
    rows = pq.read_table(stranger / "test-00000-of-00001.parquet").slice(0, 5)
    Dataset.from_list(rows.slice(0, 4).to_pylist(), features=SCHEMA).save_to_disk(tmp_path / "saved")
    with pa.ipc.new_stream(tmp_path / "saved/data-00000-of-00001.arrow", rows.schema) as file:
        file.write_table(rows)
    with pytest.raises(ValueError, match=r"at most 1% unreadable .* found 1 of 5, such as .*only the path .*secret"):
        load_images(tmp_path / "saved")


def test_streams_do_not_open_what_a_row_names(
    stranger: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import ViTImageProcessorPil

    from realfake_hf.data.streaming import StreamedPixels

    monkeypatch.setattr(Pillow, "open", _refuse_paths(Pillow.open))
    split = find_shards(str(stranger))["train"]
    with pytest.raises(ValueError, match="expected image files in the train shards; found 2 rows"):
        split.load()
    with pytest.raises(ValueError, match="expected image files in the train shards; found 1 rows"):
        split.select([1, 4])
    assert len(split.select([1, 2])) == 2
    blocks = split.share(8, processes=1, process=0)[1]
    with pytest.raises(ValueError, match=r"expected readable images in the shards; found .*4: .*only the path"):
        [list(block) for block in blocks]
    batches = StreamedPixels(split, ViTImageProcessorPil(size={"height": 8, "width": 8}), batch_size=6)
    assert [len(batch["labels"]) for batch in batches] == [4]
    assert caplog.text.count("only the path") == 2


def test_shards_without_the_bytes_of_images_are_refused(stranger: Path) -> None:
    for file in stranger.iterdir():
        rows = pq.read_table(file)
        paths = pa.array([f"/etc/{n}.png" for n in range(len(rows))])
        pq.write_table(rows.set_column(0, "image", paths).replace_schema_metadata(None), file)
    with pytest.raises(ValueError, match=r"expected the columns .* found no image"):
        find_shards(str(stranger))


def _refuse_paths(open_image: Callable[..., Any]) -> Callable[..., Any]:
    def open_bytes(file: Any, *words: Any, **settings: Any) -> Any:
        assert not isinstance(file, str | Path), f"opened {file}"
        return open_image(file, *words, **settings)

    return open_bytes
