"""Some rows of a large Hugging Face data set are streamed, and several sources are read as one."""

import pytest
from datasets import Dataset, Features, Image, Value

from realfake_hf.data import hub
from realfake_hf.data.loading import load_images


def save(folder, picture_bytes, *, n, image="image", **columns):
    """Write a training split of n images, ten in a row group, with further columns."""
    data = [picture_bytes(f"{folder.name} {row}") for row in range(n)]
    kinds = {"image": Image(), "image_data": Value("binary")}
    features = {image: kinds[image], **{name: Value(kind) for name, (kind, _) in columns.items()}}
    rows = {image: data if image == "image_data" else [{"bytes": each, "path": None} for each in data]}
    rows |= {name: values for name, (_, values) in columns.items()}
    folder.mkdir()
    Dataset.from_dict(rows, features=Features(features)).to_parquet(
        folder / "train-00000-of-00001.parquet", batch_size=10
    )
    return folder


@pytest.fixture
def streamed(tmp_path_factory, tmp_path, picture_bytes, monkeypatch):
    monkeypatch.setattr(hub, "_PART", 8)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return str(save(tmp_path_factory.mktemp("rows") / "set", picture_bytes, n=60, label=("int64", list(range(60)))))


def test_a_sample_has_whole_row_groups_in_another_order_and_is_the_same_each_time(streamed):
    rows = hub.sample(streamed, 30)["train"]
    groups = [rows["label"][start : start + 10] for start in range(0, 30, 10)]
    assert all(group == list(range(group[0], group[0] + 10)) for group in groups)
    assert groups != sorted(groups) or groups[0][0]
    assert isinstance(rows[0]["image"]["bytes"], bytes)
    assert hub.sample(streamed, 30)["train"].to_dict() == rows.to_dict()
    assert sorted(hub.sample(streamed, 1000)["train"]["label"]) == list(range(60))


def test_an_interrupted_sample_is_resumed_without_reading_its_rows_again(streamed, tmp_path, monkeypatch):
    expected = hub.sample(streamed, 45)["train"]["label"][:]
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "other")
    written, write = [], hub._write_rows

    def interrupt(table, file):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(file)
        write(table, file)

    monkeypatch.setattr(hub, "_write_rows", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hub.sample(streamed, 45)
    monkeypatch.setattr(hub, "_write_rows", lambda table, file: (written.append(file), write(table, file)))
    assert hub.sample(streamed, 45)["train"]["label"][:] == expected
    assert len(written) == len(set(written)) == 6  # of eight rows each, and the last of five


def test_only_parquet_is_streamed(make_folder):
    folder = make_folder([f"train/{label}/{n}.png" for label in ("real", "fake") for n in range(2)])
    with pytest.raises(ValueError, match=r"expected parquet files in .* to stream some of its rows"):
        hub.sample(str(folder), 2)


def test_several_sources_are_read_as_one(tmp_path, picture_bytes, make_folder):
    one = save(tmp_path / "one", picture_bytes, n=6, image="image_data", label=("int64", [0, 1] * 3))
    photos = save(tmp_path / "photos", picture_bytes, n=4, width=("int64", [8] * 4))
    folder = make_folder([f"train/{label}/{n}.png" for label in ("real", "fake") for n in range(2)])
    images = load_images(f"{one}, {photos},{folder}", labels="0=REAL,1=FAKE,*=REAL")["train"]
    assert {(row["source"], row["label"]) for row in images} == {
        ("one", 0), ("one", 1), ("photos", 0), (folder.name, 0), (folder.name, 1),
    }  # fmt: skip
    assert (len(images), len(set(images["id"])), len(set(images["sha256"]))) == (14, 14, 14)
    twice = load_images(f"{one},{one}", labels="0=REAL,1=FAKE")["train"]
    assert len(set(twice["id"])) == 2 * len(set(twice["sha256"])) == 12


def test_without_a_column_of_labels_their_meaning_must_be_given(tmp_path, picture_bytes):
    photos = save(tmp_path / "photos", picture_bytes, n=2, width=("int64", [8, 8]))
    with pytest.raises(ValueError, match="expected one label column in photos"):
        load_images(photos, labels="0=REAL,1=FAKE", one_class=True)
    stated = save(tmp_path / "stated", picture_bytes, n=2, label=("string", ["real", ""]))
    with pytest.raises(ValueError, match=r"real or fake in row 1 of train of stated, 'label'; found ''"):
        load_images(stated, labels="*=FAKE", one_class=True)


@pytest.mark.parametrize("name", ["user/name[:0]", "user/name[10]", "user/name[:1]x"])
def test_a_malformed_number_of_rows_is_refused(name):
    with pytest.raises(FileNotFoundError, match=r"user/name\[:1000\]"):
        load_images(name)
