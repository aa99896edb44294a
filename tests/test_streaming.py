"""A stream yields every image once, in shuffled order, divided among processes, and resumes anywhere."""

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from transformers import ViTImageProcessorPil

from realfake_hf.data.augment import Augmentation
from realfake_hf.data.duplicates import absent_from
from realfake_hf.data.loading import load_images
from realfake_hf.data.pixels import resize_images
from realfake_hf.data.shards import write_shards
from realfake_hf.data.splits import add_missing_splits
from realfake_hf.data.streaming import StreamedPixels, find_shards
from realfake_hf.training.data import TrainingData, pixel_sets
from realfake_hf.training.run_arguments import RunArguments
from realfake_hf.training.streaming import make_loader

PROCESSOR = ViTImageProcessorPil(size={"height": 32, "width": 32})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return add_missing_splits(load_images("demo", cache_dir=tmp_path_factory.mktemp("rows")), seed=0)


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    made = tmp_path_factory.mktemp("shards") / "demo"
    write_shards(images, made, shard_bytes=60_000)
    return made


@pytest.fixture(scope="module")
def train(folder):
    return find_shards(str(folder))["train"]


@pytest.fixture(scope="module")
def names(images):
    """Return the id of each image by the hash of its pixels."""
    return {digest(resize_images([row["image"]], PROCESSOR)[0]): row["id"] for row in images["train"]}


def digest(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def stream(train, **settings):
    return StreamedPixels(train, PROCESSOR, **{"batch_size": 16, "buffer_size": 64, **settings})


def ids(batches, names):
    return [names[digest(picture)] for batch in batches for picture in batch["pixel_values"].numpy()]


def test_the_shards_are_found_and_counted(images, folder, train):
    found = find_shards(str(folder))
    assert {name: len(split) for name, split in found.items()} == {name: len(rows) for name, rows in images.items()}
    assert len(train.files) > 4
    facts = train.fingerprint()
    assert (facts["n"], facts["n_fake"]) == (len(images["train"]), sum(images["train"]["label"][:]))
    assert found["test"].load()["sha256"][:] == images["test"]["sha256"][:]


def test_an_epoch_yields_every_image_once_in_a_different_order_each_time(images, train, names):
    one = stream(train)
    epochs = []
    for epoch in range(2):
        one.set_epoch(epoch)
        epochs.append(ids(one, names))
        assert len(set(epochs[-1])) == len(images["train"])
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]
    assert epochs[0] != images["train"]["id"][:]
    assert ids(stream(train, seed=1), names) != epochs[0]
    assert ids(stream(train), names) == epochs[0]


def test_labels_stay_with_their_images(images, train, names):
    truth = dict(zip(images["train"]["id"][:], images["train"]["label"][:], strict=True))
    for batch in stream(train):
        assert [truth[name] for name in ids([batch], names)] == batch["labels"].tolist()


@pytest.mark.parametrize("shared", [(2, 0), (2, 2), (3, 0)])
def test_processes_and_workers_share_a_stream_completely(images, train, names, shared, monkeypatch):
    processes, workers = shared
    counts = Counter()
    lengths = set()
    for process in range(processes):
        part = stream(train, processes=processes, process=process, workers=workers)
        for worker in range(max(1, workers)):
            monkeypatch.setattr(StreamedPixels, "_worker", lambda _, worker=worker: worker)
            batches = list(part)
            counts.update(ids(batches, names))
            lengths.add(len(batches))
        assert len(part) == len(batches) * max(1, workers)
    assert set(counts) == set(images["train"]["id"][:])  # no loss
    assert len(lengths) == 1  # as many steps everywhere
    again = counts.total() - len(counts)
    assert again <= (max(train.sizes) + 16) * processes * max(1, workers)  # what fills up the smaller parts
    assert max(counts.values()) <= 2


def test_no_two_images_are_augmented_alike_whatever_their_part_and_block(train, monkeypatch):
    numbers, epochs = [], set()

    def record(pixels, rows, *, epoch):
        numbers.extend(rows.tolist())
        epochs.add(epoch)
        return pixels

    for process, worker in itertools.product(range(2), range(2)):
        monkeypatch.setattr(StreamedPixels, "_worker", lambda _, worker=worker: worker)
        part = stream(train, augment=record, processes=2, process=process, workers=2, buffer_size=32)
        part.set_epoch(5)
        list(part._lap(0, {}))
    assert len(numbers) == len(train)
    assert len(set(numbers)) == len(train)
    assert epochs == {5}


def test_a_run_draws_the_order_and_the_augmentation_of_its_training_images_by_its_seed(images, train, tmp_path):
    settings = {"flip": True, "crop_padding": 2, "robust_share": 0.5, "hidden_share": 0.3, "seed": 3}
    augment = Augmentation(**settings)
    run = RunArguments(output_dir=str(tmp_path), per_device_train_batch_size=16, **settings)
    whole = pixel_sets(TrainingData(images), PROCESSOR, run)
    assert {split: rows.augment for split, rows in whole.items()} == {
        "train": augment, "validation": None, "test": None
    }  # fmt: skip
    held = DatasetDict(validation=images["validation"])
    found = pixel_sets(TrainingData(held, stream=train, buffer_size=64), PROCESSOR, run)["train"]
    pairs = zip(itertools.islice(found, 3), itertools.islice(stream(train, augment=augment, seed=3), 3), strict=True)
    assert all(torch.equal(one["pixel_values"], other["pixel_values"]) for one, other in pairs)


@pytest.mark.parametrize("given", [1, 7, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 20))])
def test_a_stream_resumes_after_any_batch_as_if_uninterrupted(train, given):
    augment = Augmentation(flip=True, robust_share=0.5)
    whole = list(stream(train, augment=augment))
    broken = stream(train, augment=augment)
    begun = iter(broken)
    first = list(itertools.islice(begun, given))
    state = broken.state_dict()
    begun.close()
    other = stream(train, augment=augment)
    other.load_state_dict(state)
    rest = list(other)
    assert len(first) + len(rest) == len(whole)
    for a, b in zip([*first, *rest], whole, strict=True):
        assert torch.equal(a["pixel_values"], b["pixel_values"])
        assert torch.equal(a["labels"], b["labels"])


@pytest.mark.slow
def test_workers_resume_after_any_batch_as_if_uninterrupted(train):
    def loader():
        return make_loader(stream(train, workers=2), workers=2)

    whole = list(loader())
    broken = loader()
    first = list(itertools.islice(broken, 5))
    state = broken.state_dict()
    other = loader()
    other.load_state_dict(state)
    pairs = list(zip([*first, *other], whole, strict=True))
    assert len(pairs) == len(whole)
    assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in pairs)


def test_the_number_of_batches_is_rounded_up_to_a_multiple(train):
    assert len(stream(train, multiple=4)) % 4 == 0
    assert len(list(stream(train, multiple=4))) == len(stream(train, multiple=4))


def test_a_batch_of_a_single_image_is_replaced_if_batch_norms_need_two(train):
    for skips, last in ((False, 1), (True, len(train) - 1)):
        one = stream(train, batch_size=len(train) - 1, buffer_size=len(train))
        one.skips_single = skips
        assert [len(batch["labels"]) for batch in one] == [len(train) - 1, last]


def test_a_damaged_image_is_skipped_and_logged(images, tmp_path, caplog, names):
    rows = images["train"].select(range(40)).with_format("arrow")
    table = rows[:]
    pictures = table["image"].to_pylist()
    pictures[7] = {"bytes": b"no picture", "path": None}
    spoilt = {name: table[name].to_pylist() for name in table.column_names} | {"image": pictures}
    (tmp_path / "data").mkdir()
    Dataset.from_dict(spoilt, features=images["train"].features).to_parquet(
        tmp_path / "data/train-00000-of-00001.parquet"
    )
    found = ids(stream(find_shards(str(tmp_path))["train"]), names)
    assert set(found) == set(spoilt["id"]) - {spoilt["id"][7]}
    assert f"skipped the unreadable image {spoilt['id'][7]}" in caplog.text


def test_a_stream_without_readable_images_is_an_error(images, tmp_path):
    rows = images["train"].select(range(20)).with_format("arrow")[:]
    spoilt = {name: rows[name].to_pylist() for name in rows.column_names}
    spoilt["image"] = [{"bytes": b"no picture", "path": None}] * 20
    (tmp_path / "data").mkdir()
    Dataset.from_dict(spoilt, features=images["train"].features).to_parquet(tmp_path / "data/train-0.parquet")
    with pytest.raises(ValueError, match="expected readable images in the train shards; found none"):
        list(stream(find_shards(str(tmp_path))["train"]))


def test_leaks_are_found_by_hashes_alone(images, folder):
    found = find_shards(str(folder))
    leaks = [images[split].select(range(3)) for split in ("train", "validation")]
    held = DatasetDict(validation=images["validation"], test=concatenate_datasets([images["test"], *leaks]))
    free = TrainingData(held, stream=found["train"]).leak_free()
    assert np.array_equal(free, TrainingData(DatasetDict(train=images["train"], **held)).leak_free())
    assert free.any()
    assert not free[-6:].any()
    assert not absent_from(images["test"]["sha256"][:], found["test"].column("sha256")).any()


def test_sources_that_cannot_be_streamed_are_rejected(images, folder, train, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected parquet shards in a folder or Hub data set"):
        find_shards(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"at least as many row groups as processes times workers, 99; found"):
        stream(train, processes=99)
    broken = tmp_path / "broken/data"
    broken.mkdir(parents=True)
    (broken / "train-00000-of-00001.parquet").write_bytes(
        (folder / "data").joinpath(train.files[0]).read_bytes()[:500]
    )
    with pytest.raises(ValueError, match=r"expected a parquet shard in .*train-00000-of-00001\.parquet; found"):
        find_shards(str(broken.parent))
    images["train"].select(range(5)).remove_columns("sha256").to_parquet(broken / "train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="found no sha256"):
        find_shards(str(broken.parent))
