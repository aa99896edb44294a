"""Split, label, content and generator are inferred from paths and metadata; ambiguous sources are rejected."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType, SimpleNamespace

import pytest

from realfake_hf.data import listings
from realfake_hf.data.folders import CIFAKE_CONTENTS, Record, find_records, opaque_id, parse_split
from realfake_hf.labels import LabelWords


def read_layout(
    files: Sequence[str] | Mapping[str, str | bytes], source: str = "mine", words: LabelWords = MappingProxyType({})
) -> dict[str, Record]:
    def read(path: str) -> bytes:
        data = files[path]  # type: ignore[call-overload]
        return data if isinstance(data, bytes) else data.encode()

    folder = SimpleNamespace(paths=list(files), read=read)
    return {record.key: record for record in find_records(folder, source, words)}  # type: ignore[arg-type]


TWO = ("real", "fake")


def labels(records: Mapping[str, Record]) -> dict[str, str]:
    return {key: record.label for key, record in records.items()}


def test_the_number_in_a_cifake_file_name_is_its_content() -> None:
    names = ["{}.jpg", *(f"{{}} ({number}).jpg" for number in range(2, 11))]
    fakes = read_layout([f"train/FAKE/{name.format(1000)}" for name in names])
    reals = read_layout([f"test/REAL/{name.format('0012')}" for name in names])
    for records in (fakes, reals):
        assert tuple(record.content for record in records.values()) == CIFAKE_CONTENTS
        assert {record.source for record in records.values()} == {"cifake"}
    assert {(r.label, r.split, r.generator) for r in fakes.values()} == {("FAKE", "train", "stable-diffusion-1.4")}
    assert {(r.label, r.split, r.generator) for r in reals.values()} == {("REAL", "test", None)}


def test_ids_of_cifake_do_not_depend_on_its_location() -> None:
    here = read_layout(["train/FAKE/1000 (7).jpg"])["train/FAKE/1000 (7).jpg"]
    there = read_layout(["data/cifake/train/FAKE/1000 (7).jpg"])["data/cifake/train/FAKE/1000 (7).jpg"]
    assert here.id == there.id == opaque_id("cifake/train/FAKE/1000 (7).jpg")


def test_two_copies_of_cifake_in_one_folder_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"expected one copy of CIFAKE in mine; found 2: \./, old/\."):
        read_layout(["train/FAKE/1000 (7).jpg", "old/train/FAKE/1000 (7).jpg"])


@pytest.mark.parametrize(
    "paths",
    [
        ["REAL/0001 (2).jpg", "FAKE/1 (3).jpg"],  # no train or test
        ["train/REAL/1 (2).jpg", "train/FAKE/1 (2).jpg"],  # REAL is not zero-padded: Windows numbers copies so
        ["train/REAL/0001.jpg", "train/FAKE/1.jpg"],  # no number in brackets anywhere
        ["train/REAL/0001 (11).jpg", "train/FAKE/1 (11).jpg"],  # no such content
        ["train/REAL/0001 (2).png", "train/FAKE/1 (2).png"],
        ["train/real/0001 (2).jpg", "train/fake/1 (2).jpg"],
    ],
)
def test_numbers_in_file_names_of_other_data_sets_are_not_contents(paths: list[str]) -> None:
    for record in read_layout(paths).values():
        assert (record.content, record.generator, record.source) == (None, None, "mine")


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("real", "fake"), ("REAL", "FAKE"), ("0_real", "1_fake"), ("1_real", "0_fake"), ("nature", "ai"),
        ("RealArt", "AiArtData"), ("RealArt/RealArt", "AiArtData/AiArtData"), ("x/RealArt/RealArt", "x/AiArtData"),
    ],
)  # fmt: skip
def test_a_folder_named_for_a_label_labels_its_images(real: str, fake: str) -> None:
    records = read_layout([f"{real}/1.png", f"{fake}/1.png"])
    assert labels(records) == {f"{real}/1.png": "REAL", f"{fake}/1.png": "FAKE"}
    assert {(r.split, r.content, r.generator, r.id) for r in records.values()} == {("train", None, None, None)}


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("real/frog/1.png", "frog"),
        ("frog/real/1.png", "frog"),
        ("train/frog/0_real/1.png", "frog"),
        ("frog/train/0_real/1.png", "frog"),
        ("real/train/frog/1.png", "frog"),
        ("real/frog/green/1.png", "frog"),
        ("set/frog/real/1.png", "frog"),
        ("real/1.png", None),
        ("train/real/1.png", None),
    ],
)
def test_the_folder_below_or_else_above_the_label_is_the_content(path: str, content: str | None) -> None:
    other = path.replace("real", "fake").replace("frog", "dog")
    assert read_layout([path, other])[path].content == content


def test_a_folder_shared_by_all_images_is_not_a_content() -> None:
    records = read_layout(["my set/real/1.png", "my set/fake/1.png"])
    assert {record.content for record in records.values()} == {None}


def test_a_folder_shared_by_all_images_is_not_a_label() -> None:
    records = read_layout(["photos/real/1.png", "photos/fake/1.png"])
    assert labels(records) == {"photos/real/1.png": "REAL", "photos/fake/1.png": "FAKE"}


def test_split_folders_may_lie_above_or_below_the_label() -> None:
    records = read_layout(["Training/real/1.png", "fake/val/1.png", "real/dev/2.png", "TEST/fake/2.png"])
    assert [record.split for record in records.values()] == ["train", "validation", "validation", "test"]


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("train Train TRAINING train_set trainset training-data train2017 train_images train-00000-of-00003", "train"),
        ("val valid validation dev Val_Set valset val2017 validation-data devData", "validation"),
        ("test Testing test_set TestSet testset test_images eval evaluation Eval_v2 test-00000-of-00003", "test"),
        ("CNN_synth_testset crash-test my_validation_photos", None),
    ],
)
def test_a_split_is_read_from_the_words_of_a_folder(names: str, split: str | None) -> None:
    for name in names.split():
        records = read_layout([f"set/{name}/real/1.png", f"set/{name}/fake/1.png", "set/train/real/2.png"])
        found = records[f"set/{name}/real/1.png"].split
        assert found == split if split else found in ("validation", "test"), name


@pytest.mark.parametrize("name", ["latest", "valley", "developers", "train_station", "protest", "contest", "setting"])
def test_a_word_that_only_contains_the_name_of_a_split_is_none(name: str) -> None:
    records = read_layout([f"{name}/real/1.png", f"{name}/fake/1.png", "frog/real/1.png"])
    assert {(record.split, record.content) for record in records.values()} == {("train", name), ("train", "frog")}


@pytest.mark.parametrize("name", ["holdout", "hold_out", "held-out", "HeldOut", "unseen_models", "train_test"])
@pytest.mark.parametrize("place", ["{}/real", "real/{}", "train/{}/real"])
def test_images_of_an_unclear_split_are_never_trained_on(name: str, place: str) -> None:
    if name == "train_test" and place.startswith("train/"):
        return  # a folder of several splits, which the other folder resolves
    with pytest.raises(ValueError, match=f"expected a split named train, validation or test in .*; found '{name}'"):
        read_layout([f"{place.format(name)}/1.png", "train/fake/1.png"])


def test_a_folder_of_several_splits_may_contain_folders_of_each() -> None:
    records = read_layout([f"train_test/{split}/{label}/1.png" for split in ("train", "test") for label in TWO])
    assert [record.split for record in records.values()] == ["train", "train", "test", "test"]


def test_a_folder_may_name_split_and_label_together() -> None:
    records = read_layout(["training_real/1.png", "Train-Fake/1.png", "test_ai_gen/1.png", "RealTest/1.png"])
    assert [(record.split, record.label, record.content) for record in records.values()] == [
        ("train", "REAL", None), ("train", "FAKE", None), ("test", "FAKE", None), ("test", "REAL", None),
    ]  # fmt: skip


@pytest.mark.parametrize(("real", "fake"), [("0", "1"), ("human_faces", "Midjourney v5"), ("COCO", "sd")])
def test_other_folders_are_labels_if_their_words_are_given(real: str, fake: str) -> None:
    paths = [f"train/{real}/frog/1.png", f"train/{fake}/1", "train/real/2.png"]
    with pytest.raises(ValueError, match=r"found 1 of 2 without one, such as .*--labels 0=REAL,1=FAKE"):
        read_layout(paths)
    records = read_layout(paths, words={real.casefold(): "REAL", fake.casefold(): "FAKE"})
    assert labels(records) == dict(zip(paths, ("REAL", "FAKE", "REAL"), strict=True))
    assert records[paths[0]].content == "frog"


def test_names_with_spaces_brackets_and_other_scripts_are_kept() -> None:
    paths = ["real/été (1) [x].png", "fake/лягушка/写真 #1?.webp", "real/.../a.png", "fake/a.b/c.tar.png"]
    assert set(read_layout([paths[0], paths[1], paths[3]])) == {paths[0], paths[1], paths[3]}


def test_a_folder_name_that_is_not_utf8_becomes_valid_text() -> None:
    records = read_layout(["real/\udcff/1.png", "fake/\udcff/1.png"])
    assert {record.content for record in records.values()} == {"�"}
    assert len(opaque_id("real/\udcff/1.png")) == 16


def test_other_files_are_ignored() -> None:
    beside = [
        "readme.txt", "real/readme.md", "real/Thumbs.db", "fake/desktop.ini", ".DS_Store", "real/.DS_Store", "LICENSE",
        "__MACOSX/real/._1.png", "__MACOSX/real/1.png", ".git/real/1.png", "real/._1.png", "scripts/run.py", "a.mp4",
    ]  # fmt: skip
    assert set(read_layout(["real/1.png", "fake/1.png", *beside])) == {"real/1.png", "fake/1.png"}


def test_a_file_in_a_label_folder_is_an_image_with_any_suffix() -> None:
    paths = ["real/0af3", "real/1.PNG", "real/pic.jpg_large", "fake/v2.1080", "fake/1.jpeg"]
    assert set(read_layout(paths)) == set(paths)


def test_an_image_outside_of_the_label_folders_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"expected every image of mine in a folder .* found 1 of 3 .* 'cover\.png'"):
        read_layout(["real/1.png", "fake/1.png", "cover.png"])


@pytest.mark.parametrize("odd", ["real/fake/x.png", "fake/human/x.png"])
def test_an_image_below_folders_of_both_labels_is_rejected(odd: str) -> None:
    with pytest.raises(ValueError, match=f"expected one label for each image; found FAKE and REAL in .*{odd}"):
        read_layout(["real/1.png", "fake/1.png", odd])


def test_a_split_stated_for_some_images_only_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"expected a split .* for every image of mine or for none; found 1 of 3"):
        read_layout(["train/real/1.png", "train/fake/1.png", "real/2.png"])


def test_an_image_in_two_splits_is_rejected() -> None:
    with pytest.raises(ValueError, match="expected one split for each image; found test and train in 'train/test/"):
        read_layout(["train/test/real/1.png", "train/fake/1.png"])


@pytest.mark.parametrize("files", [[], ["readme.txt"], ["movie.mp4", "real/readme.txt"]])
def test_a_source_without_images_is_rejected(files: list[str]) -> None:
    with pytest.raises(ValueError, match=f"expected images in mine; found {len(files)} files"):
        read_layout(files)


@pytest.mark.parametrize("name", ["holdout", "frog", "", "train+test", "A", "training_shoes"])
def test_a_split_that_is_not_understood_is_rejected(name: str) -> None:
    with pytest.raises(ValueError, match="expected a split named train, validation or test in set; found"):
        parse_split(name, where="set")


def test_an_unknown_split_is_rejected() -> None:
    with pytest.raises(ValueError, match="expected a split named train, validation or test in set; found 'holdout'"):
        parse_split("holdout", where="set")


def test_metadata_state_label_content_generator_source_and_split() -> None:
    table = "file_name,label,content,generator,source,split\na.png,real,frog,,COCO,test\nb.png,1_fake,,SDXL,,test\n"
    records = read_layout({"metadata.csv": table, "a.png": "", "b.png": ""})
    assert records["a.png"] == Record(key="a.png", split="test", label="REAL", content="frog", source="COCO")
    assert records["b.png"] == Record(key="b.png", split="test", label="FAKE", generator="SDXL", source="mine")


def test_the_generator_of_a_real_image_is_ignored() -> None:
    table = "path,label,generator\na.png,real,camera\nb.png,fake,SDXL\n"
    assert read_layout({"metadata.csv": table, "a.png": "", "b.png": ""})["a.png"].generator is None


def test_metadata_override_the_folders_column_by_column() -> None:
    table = "file_name,content\n1.png,toad\n"
    records = read_layout({"real/metadata.csv": table, "real/1.png": "", "real/2.png": "", "fake/frog/1.png": ""})
    assert {key: record.content for key, record in records.items()} == {
        "real/1.png": "toad", "real/2.png": None, "fake/frog/1.png": "frog",
    }  # fmt: skip
    assert labels(records) == {"real/1.png": "REAL", "real/2.png": "REAL", "fake/frog/1.png": "FAKE"}


def test_images_missing_from_metadata_are_labelled_by_their_folders() -> None:
    table = "file_name,label\n1.png,fake\n"
    assert labels(read_layout({"x/metadata.csv": table, "x/1.png": "", "real/2.png": ""})) == {
        "x/1.png": "FAKE", "real/2.png": "REAL",
    }  # fmt: skip


def test_an_image_without_any_label_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"found 1 of 3 without one, such as 'c\.png'"):
        read_layout({"metadata.csv": "path,label\na.png,real\nb.png,fake\n", "a.png": "", "b.png": "", "c.png": ""})


@pytest.mark.parametrize(
    "table",
    [
        b"\xef\xbb\xbffile_name,label\r\na.png,real\r\nb.png,fake\r\n",  # as Excel writes it
        b'path,label,note\na.png,REAL,"x, y"\n.\\b.png,fake\n',
        b"label,path\nreal,./a.png\nfake,b.png\n",
    ],
)
def test_byte_order_marks_windows_paths_and_short_rows_are_read(table: bytes) -> None:
    assert labels(read_layout({"metadata.csv": table, "a.png": "", "b.png": ""})) == {"a.png": "REAL", "b.png": "FAKE"}


def test_a_listed_image_that_is_missing_remains_a_record() -> None:
    table = "path,label\na.png,real\ngone.png,fake\n"
    assert "gone.png" in read_layout({"metadata.csv": table, "a.png": ""})


def test_metadata_without_file_names_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"expected a column file_name or path .* x/metadata\.csv"):
        read_layout({"x/metadata.csv": "name;label\na.png;real\n", "x/a.png": ""})


@pytest.mark.parametrize("label", ["0", "1", "", "frog"])
def test_metadata_with_numeric_or_unknown_labels_are_rejected(label: str) -> None:
    with pytest.raises(ValueError, match=f"expected a label such as real or fake in .* found '{label}'"):
        read_layout({"metadata.csv": f"path,label\na.png,{label}\n", "a.png": ""})


@pytest.mark.parametrize("path", ["../secret.png", "/etc/secret.png", "a/../../b.png", "..\\b.png", "C:\\b.png"])
def test_metadata_with_paths_outside_of_the_folder_are_rejected(path: str) -> None:
    with pytest.raises(ValueError, match=r"expected paths below the folder of metadata\.csv; found"):
        read_layout({"metadata.csv": f"path,label\n{path},real\n", "a.png": ""})


def test_an_image_listed_twice_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"expected each image once in metadata\.csv; found 'a\.png' twice"):
        read_layout({"metadata.csv": "path,label\na.png,real\n./a.png,fake\n", "a.png": ""})


@pytest.mark.parametrize("table", ["path,label\na.png,real\n".encode("utf-16"), b'path,label\n"a.png,real\n'])
def test_metadata_that_are_not_utf8_csv_are_rejected(table: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected comma-separated UTF-8 in metadata\.csv; found"):
        read_layout({"metadata.csv": table, "a.png": ""})


@pytest.mark.parametrize(
    ("header", "real", "fake"),
    [
        ("is_ai", "0", "1"), ("fake", "False", "True"), ("is_real", "1", "0"), ("IsFake", "no", "yes"),
        ("class", "real", "AI-generated"), ("target", "Real", "Fake"), (" Label ", "by human", "by AI"),
    ],
)  # fmt: skip
def test_other_columns_state_the_label_if_their_meaning_is_certain(header: str, real: str, fake: str) -> None:
    table = f"file_name,{header}\na.png,{real}\nb.png,{fake}\n"
    assert labels(read_layout({"metadata.csv": table, "a.png": "", "b.png": ""})) == {"a.png": "REAL", "b.png": "FAKE"}


@pytest.mark.parametrize("header", ["label", "class", "target", "labels"])
def test_numbers_in_these_columns_need_their_meaning(header: str) -> None:
    files = {"metadata.csv": f"file_name,{header}\na.png,0\nb.png,1\n", "a.png": "", "b.png": ""}
    with pytest.raises(ValueError, match="--labels 0=REAL,1=FAKE"):
        read_layout(files)
    assert labels(read_layout(files, words={"1": "REAL", "0": "FAKE"})) == {"a.png": "FAKE", "b.png": "REAL"}


def test_a_class_that_is_a_content_does_not_override_the_folder() -> None:
    table = "file_name,class,fake\n1.png,human,made in 2023\n"
    assert labels(read_layout({"ai/metadata.csv": table, "ai/1.png": "", "real/1.png": ""}))["ai/1.png"] == "FAKE"


@pytest.mark.parametrize("header", ["split", "Subset", "partition", "set"])
def test_the_split_may_be_stated_in_a_column_of_another_name(header: str) -> None:
    table = f"file_name,label,{header}\na.png,real,Train\nb.png,fake,train_set\nc.png,fake,eval\n"
    records = read_layout({"metadata.csv": table, "a.png": "", "b.png": "", "c.png": ""})
    assert [record.split for record in records.values()] == ["train", "train", "test"]
    with pytest.raises(ValueError, match=r"expected a split .* found 'holdout'"):
        read_layout({"metadata.csv": table.replace("eval", "holdout"), "a.png": "", "b.png": "", "c.png": ""})


def test_metadata_jsonl_have_the_columns_of_metadata_csv() -> None:
    rows: list[dict[str, object]] = [
        {"file_name": "a", "label": "real", "split": "val", "content": "frog\ud800", "extra": {"x": [1]}},
        {"file_name": "b.x", "is_ai": True, "split": "train", "generator": "SDXL", "content": None},
        {"path": "c.png", "is_ai": 0, "split": "test", "source": "COCO"},
    ]
    text = "\ufeff" + "\n\n".join(json.dumps(row) for row in rows)
    records = read_layout({"x/metadata.jsonl": text, "x/a": "", "x/b.x": "", "x/c.png": ""})
    assert records == {
        "x/a": Record(key="x/a", split="validation", label="REAL", content="frog?", source="mine"),
        "x/b.x": Record(key="x/b.x", split="train", label="FAKE", generator="SDXL", source="mine"),
        "x/c.png": Record(key="x/c.png", split="test", label="REAL", source="COCO"),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", r"expected JSON lines in metadata\.jsonl"), ("{", r"expected JSON lines in metadata\.jsonl"),
        ("[" * 100_000, r"expected JSON lines in metadata\.jsonl"),
        ('{"label": "real"}', r"expected a column file_name or path .* metadata\.jsonl"),
        ('{"path": "../a.png"}', r"expected paths below the folder of metadata\.jsonl"),
        ('{"path": "a\\u0000.png"}', r"expected paths below the folder of metadata\.jsonl"),
        ('{"path": "\\ud800.png"}', r"expected names of files in metadata\.jsonl"),
    ],
)  # fmt: skip
def test_metadata_jsonl_that_are_not_rows_of_files_are_rejected(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_layout({"metadata.jsonl": line, "a.png": ""})


def test_tables_are_bounded_in_size_columns_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    many = "".join(f"{n},real\n" for n in range(1100))
    with pytest.raises(ValueError, match=r"expected rows of existing files in metadata\.csv; found more than 1,004"):
        read_layout({"metadata.csv": f"path,label\n{many}", "a.png": ""})
    with pytest.raises(ValueError, match="found more than 1000 columns"):
        read_layout({"metadata.csv": "path," + "x," * 1001, "a.png": ""})
    monkeypatch.setattr(listings, "MAX_TABLE_BYTES", 40)
    small = "path,label\na.png,real\n"
    assert read_layout({"metadata.csv": small, "a.png": ""})
    with pytest.raises(ValueError, match=r"expected tables of at most 40 bytes; found 44 with x/metadata\.csv"):
        read_layout({"metadata.csv": small, "x/metadata.csv": small, "a.png": "", "x/a.png": ""})
