"""`crosseval.py --streaming`: a grid of shards is the grid of the source they were written from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_grid import SMALL, save_cnn
from writable_hub import serve

import crosseval
from benchmarks.launch import launcher
from realfake_hf.crosseval.datasets import load_dataset, sample_leak_free, stream_dataset
from realfake_hf.crosseval.models import fit_baseline, load_model
from realfake_hf.crosseval.scoring import score_all
from realfake_hf.data.shards import main as write_shards
from realfake_hf.data.streaming import find_shards, hash_keys

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo's pictures as many small shards."""
    made = tmp_path_factory.mktemp("shards") / "demo"
    given = ["--data", "demo", "--output_dir", str(made), "--shard_mib", "0.1", "--all_splits", "true"]
    assert write_shards(given) == 0
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_cnn(tmp_path_factory.mktemp("models") / "cnn", threshold=0.45)


@pytest.fixture
def streamed(folder):
    return stream_dataset("demo", str(folder), split="train", seed=0)


@pytest.fixture
def kept(folder):
    return load_dataset("demo", str(folder), split="train", seed=0)


def words(model, source, output, *more):
    return ["--models", f"cnn={model}", "--datasets", f"demo={source}", *SMALL, "--output_dir", str(output), *more]


def cells_in(folder):
    return json.loads((folder / "grid.json").read_text())["cells"]


def in_order_of(one, values):
    """Values of a data set's rows by their hashes: shards may lie in another order than rows that were kept."""
    return [value for _, value in sorted(zip(list(hashes(one)), values, strict=True))]


def hashes(one):
    return [digest for some in one.digests() for digest in some]


def test_what_is_said_of_the_images_is_what_it_is_of_kept_ones(streamed, kept):
    assert len(streamed.rows.files) > 3
    assert sorted(hashes(streamed)) == sorted(hashes(kept))
    for name in ("is_fake", "content", "generator", "is_leak_free"):
        found, expected = (in_order_of(one, map(str, getattr(one, name))) for one in (streamed, kept))
        assert found == expected, name
    assert streamed.rows.keys.tolist() == hash_keys(hashes(streamed)).tolist()
    assert streamed.is_streamed
    assert not kept.is_streamed


def test_scores_are_those_of_kept_images(streamed, kept, model):
    entrants = [load_model("cnn", str(model))]
    found, expected = (score_all(entrants, one, "matched")["cnn"] for one in (streamed, kept))
    np.testing.assert_allclose(in_order_of(streamed, found), in_order_of(kept, expected), atol=1e-6)


@pytest.mark.parametrize("processes", [1, 2, 5, 1000])
def test_blocks_are_the_same_however_many_share_them(streamed, processes):
    whole, _ = streamed.share(10, processes=1, process=0)
    digests, seen = hashes(streamed), []
    for process in range(processes):
        places, blocks = streamed.share(10, processes=processes, process=process)
        for place, block in zip(places, blocks, strict=True):
            rows = list(block)
            assert [row["sha256"] for row in rows] == digests[place.start : place.stop]
            assert all(row["image"].mode == "RGB" for row in rows)
        seen += places
    assert sorted(seen, key=lambda place: place.start) == whole
    assert sum(map(len, whole)) == len(streamed.rows)
    assert max(map(len, whole)) == 10


def test_rows_are_found_by_their_places(streamed):
    digests = hashes(streamed)
    places = [0, 1, 200, len(digests) - 1]
    assert streamed.rows.select(places)["sha256"][:] == [digests[place] for place in places]
    row = streamed.rows[200]
    assert (row["sha256"], row["image"].mode) == (digests[200], "RGB")
    assert [row["label"], row["content"]] == [int(streamed.is_fake[200]), streamed.content[200]]


def test_some_images_are_drawn_evenly_and_held(folder):
    one = stream_dataset("demo", str(folder), split="train", limit=40, seed=0)
    assert len(one.rows) == 40
    assert one.is_fake.sum() == 20
    assert len({(label, name) for label, name in zip(one.is_fake.tolist(), one.content, strict=True)}) > 10
    assert one.rows[0]["image"].mode == "RGB"
    drawn = sample_leak_free(stream_dataset("demo", str(folder), split="train", seed=0), 30, seed=0)
    assert (len(drawn.rows), int(drawn.is_fake.sum())) == (30, 15)


def test_leaks_are_counted(folder, tmp_path):
    (tmp_path / "data").mkdir()
    train, test = (sorted((folder / "data").glob(f"{split}-*.parquet")) for split in ("train", "test"))
    for split, files in (("train", [*train, test[0]]), ("test", test)):
        for number, file in enumerate(files):
            (tmp_path / f"data/{split}-{number:05d}-of-{len(files):05d}.parquet").symlink_to(file)
    one = stream_dataset("demo", str(tmp_path), seed=0)
    assert (~one.is_leak_free).sum() == pq.read_metadata(test[0]).num_rows
    assert not one.is_leak_free[0]
    assert one.is_leak_free[-1]


def test_the_baseline_learns_from_none_of_the_measured(folder):
    test = stream_dataset("demo", str(folder), seed=0)
    training = stream_dataset("--baseline_data", str(folder), split="train", limit=60, seed=0)
    assert fit_baseline(training, [test]).place.startswith("60 training images of ")
    with pytest.raises(ValueError, match=r"training images in .* found 0 and 0"):
        fit_baseline(training, [stream_dataset("demo", str(folder), split="train", seed=0)])


def test_file_facts_are_read_from_the_shards(streamed, folder):
    facts = streamed.file_properties(50, seed=0)
    assert (len(facts.is_fake), int(facts.is_fake.sum()), facts.as_stored) == (50, 25, True)
    assert set(facts.columns["format"]) <= {"PNG", "JPEG"}
    held = stream_dataset("demo", str(folder), split="train", limit=50, seed=0).file_properties(50, seed=0)
    assert sorted(held.digest) == sorted(facts.digest)


def test_an_image_that_cannot_be_read_is_named(folder, model, tmp_path, capsys):
    shard = sorted((folder / "data").glob("test-*.parquet"))[0]
    table = pq.read_table(shard)
    pictures = table.column("image").to_pylist()
    pictures[3] = {"bytes": b"no picture", "path": None}
    place = table.schema.get_field_index("image")
    (tmp_path / "bad").mkdir()
    broken = table.set_column(place, table.schema.field(place), pa.array(pictures, table.schema.field(place).type))
    pq.write_table(broken, tmp_path / "bad/test-00000-of-00001.parquet")
    given = words(model, tmp_path / "bad", tmp_path / "grid", "--streaming", "true", "--protocols", "native")
    assert crosseval.main(given) == 1
    said = capsys.readouterr().err
    assert f"found {table.column('id')[3]}: not an image file" in said
    assert "Traceback" not in said


def test_shards_that_change_meanwhile_are_noticed(folder, tmp_path):
    train = sorted((folder / "data").glob("train-*.parquet"))
    (tmp_path / "train-0.parquet").write_bytes(train[0].read_bytes())
    rows = find_shards(str(tmp_path))["train"]
    assert len(rows.keys) == len(rows)
    table = pq.read_table(train[0])
    pq.write_table(table.take(list(range(len(table)))[::-1]), tmp_path / "train-0.parquet", row_group_size=256)
    _, blocks = rows.share(8, processes=1, process=0)
    with pytest.raises(ValueError, match="unchanged since they were counted"):
        next(blocks)
    pq.write_table(table.slice(0, len(table) - 9), tmp_path / "train-0.parquet", row_group_size=256)
    _, blocks = rows.share(8, processes=1, process=0)
    with pytest.raises(ValueError, match="unchanged since they were counted"):
        list(blocks)


@pytest.mark.slow
def test_the_whole_command_gives_the_cells_of_kept_images(folder, model, tmp_path):
    more = ["--protocols", "native", "--baseline_data", str(folder), "--errors", "2", "--training_data", str(folder)]
    more += ["--robustness", "demo", "--robustness_n", "20"]
    assert crosseval.main(words(model, folder, tmp_path / "kept", *more)) == 0
    assert crosseval.main(words(model, folder, tmp_path / "streamed", "--streaming", "true", *more)) == 0
    kept, streamed = (cells_in(tmp_path / name) for name in ("kept", "streamed"))
    assert [cell["model"] for cell in streamed] == ["cnn", "trivial"]
    for name in ("n_real", "n_fake", "threshold"):
        assert streamed[0]["report"][name] == kept[0]["report"][name]
    assert streamed[0]["report"]["roc_auc"]["value"] == pytest.approx(kept[0]["report"]["roc_auc"]["value"], abs=1e-6)
    again = tmp_path / "streamed/grid.json"
    before = json.loads(again.read_text())
    assert crosseval.main(words(model, folder, tmp_path / "streamed", "--streaming", "true", *more)) == 0
    assert json.loads(again.read_text()) == before
    assert before["settings"]["streaming"] is True
    assert before["errors"]
    assert before["robustness"]


def test_what_is_no_shards_or_no_stream_is_rejected(model, tmp_path, capsys):
    for more, sentence in (
        (
            ["--datasets", "demo=demo", "--streaming", "true"],
            "parquet shards in a folder or Hub data set 'demo'",
        ),
        (["--streaming", "true", "--duplicates_of", "demo"], "--streaming or --duplicates_of; found both"),
    ):
        try:
            status = crosseval.main([*words(model, "demo", tmp_path / "grid"), *more])
        except SystemExit as stopped:  # by the reader of arguments
            status = stopped.code
        assert status
        assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_the_stream_and_give_the_grid_of_one(folder, model, tmp_path):
    given = ["--streaming", "true", "--split", "train"]
    assert crosseval.main(words(model, folder, tmp_path / "one", *given)) == 0
    done = subprocess.run(
        [*launcher(2, "--multi_gpu"), str(ROOT / "crosseval.py"), *words(model, folder, tmp_path / "two", *given)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, cwd=ROOT, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert cells_in(tmp_path / "two") == cells_in(tmp_path / "one")


@pytest.mark.slow
def test_shards_on_the_hub_are_streamed_from_there(folder, model, tmp_path):
    upload = (
        "from huggingface_hub import HfApi; api = HfApi(); api.create_repo('user/set', repo_type='dataset'); "
        f"api.upload_folder(folder_path={str(folder)!r}, repo_id='user/set', repo_type='dataset')"
    )
    training = ["--num_train_epochs", "1", "--per_device_train_batch_size", "64", "--bootstrap_samples", "0"]
    with serve() as (hub, address):
        environment = {**{k: v for k, v in os.environ.items() if not k.startswith("HF_")}, "HF_ENDPOINT": address}
        environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_stand_in"}

        def ask(*command):
            done = subprocess.run(
                [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, cwd=ROOT,
                timeout=240,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

        ask("-c", upload)
        ask("crosseval.py", *words(model, "user/set", tmp_path / "hub", "--streaming", "true"))
        shards = {path for _, path in hub.requests if path.endswith(".parquet")}
        ask(
            "train.py", "--data", "user/set", "--streaming", "true", *training, "--output_dir",
            str(tmp_path / "run"),
        )  # fmt: skip
    assert len(shards) == len(list((folder / "data").iterdir()))
    assert crosseval.main(words(model, folder, tmp_path / "here", "--streaming", "true")) == 0
    assert cells_in(tmp_path / "hub") == cells_in(tmp_path / "here")
    passport = json.loads((tmp_path / "run/run.json").read_text())
    assert passport["data"]["train"]["n"] == len(find_shards(str(folder))["train"])
    assert not list((tmp_path / "home").rglob("train-*.parquet"))  # streamed, not downloaded
