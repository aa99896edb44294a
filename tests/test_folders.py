"""Split, label, content and generator are inferred from paths and metadata; ambiguous sources are rejected."""

from collections.abc import Mapping, Sequence

import pytest

from realfake_hf.data.folders import CIFAKE_CONTENTS, Record, find_records, opaque_id, parse_split


def read_layout(files: Sequence[str] | Mapping[str, str | bytes], source: str = "mine") -> dict[str, Record]:
    def read(path: str) -> bytes:
        data = files[path]  # type: ignore[call-overload]
        return data if isinstance(data, bytes) else data.encode()

    return {record.key: record for record in find_records(list(files), source=source, read=read)}


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
