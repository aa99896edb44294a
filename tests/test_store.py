"""Files are written atomically, damaged files are detected and replaced, and finished cells are read back."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import ViTImageProcessorPil

import train
from realfake_hf.data.loading import load_images
from realfake_hf.data.pixels import cached_pixels
from realfake_hf.store import Store, begin_or_resume, damaged_files, write_checksums, write_json, write_results
from realfake_hf.training.callbacks import EpochLines


def cut_short(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def change(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [cut_short, change, lambda file: file.unlink()], ids=["cut", "changed", "gone"])
def test_damaged_files_are_named(tmp_path, damage):
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_bytes(b"0123456789")
    checksums = tmp_path / "sums.json"
    assert damaged_files(checksums) == []
    write_checksums(files, checksums)
    assert damaged_files(checksums) == []
    damage(files[1])
    assert damaged_files(checksums) == ["b"]
    checksums.write_text("{")
    assert damaged_files(checksums) == ["sums.json"]


@pytest.mark.parametrize("damage", [cut_short, change])
def test_damaged_rows_are_read_again(tmp_path, caplog, damage):
    before = load_images("demo", cache_dir=tmp_path)
    digests = {split: rows["sha256"][:] for split, rows in before.items()}
    [file] = tmp_path.glob("*/train.arrow")
    damage(file)
    again = load_images("demo", cache_dir=tmp_path)
    assert f"checksum mismatch in {file}: reading the source again" in caplog.text
    assert {split: rows["sha256"][:] for split, rows in again.items()} == digests


@pytest.mark.parametrize("damage", [cut_short, change])
def test_damaged_pixels_are_decoded_again(tmp_path, caplog, damage):
    rows = load_images("demo", cache_dir=tmp_path / "rows")["test"]
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    before = np.array(cached_pixels(rows, processor, cache_dir=tmp_path / "pixels"))
    [file] = (tmp_path / "pixels").glob("*.npy")
    damage(file)
    again = cached_pixels(rows, processor, cache_dir=tmp_path / "pixels")
    assert f"checksum mismatch in {file}: decoding the images again" in caplog.text
    assert np.array_equal(again, before)
    caplog.clear()
    cached_pixels(rows, processor, cache_dir=tmp_path / "pixels")
    assert caplog.text == ""


@pytest.mark.slow
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(tmp_path, monkeypatch, caplog):
    words = ["--data", "demo", "--num_filters", "4", "--dense_units", "4", "--num_train_epochs", "3"]
    words += ["--bootstrap_samples", "0", "--save_total_limit", "5", "--output_dir"]
    assert train.main([*words, str(tmp_path / "whole")]) == 0
    begin = EpochLines.on_epoch_begin

    def interrupt(self, args, state, control, **kwargs):
        if state.epoch >= 2:
            raise KeyboardInterrupt
        begin(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_epoch_begin", interrupt)
        assert train.main([*words, str(tmp_path / "run")]) == 130
    first, second = sorted((tmp_path / "run").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[-1]))
    assert set(json.loads((second / "checksums.json").read_text())) >= {"model.safetensors", "optimizer.pt"}
    cut_short(second / "optimizer.pt")
    shutil.rmtree(tmp_path / "run/figures", ignore_errors=True)
    assert train.main([*words, str(tmp_path / "run")]) == 0
    assert f"{second / 'optimizer.pt'} does not match its checksum; using an earlier checkpoint" in caplog.text
    assert first.is_dir()
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_work_killed_as_it_began_starts_again_and_work_in_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "asked.json.part").write_text('{"n": ')
    begin_or_resume(tmp_path / "asked.json", {"n": 9}, what="study")
    begin_or_resume(tmp_path / "asked.json", {"n": 9}, what="study")
    with pytest.raises(ValueError, match=f"the folder of an interrupted scoring; found other files in {tmp_path}"):
        begin_or_resume(tmp_path / "plan.json", {"n": 9}, what="scoring")


def test_json_is_written_atomically_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2]})
    write_json(tmp_path / "a.json", {"a": [3]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    3\n  ]\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_results_are_written_with_their_table(tmp_path):
    write_results(tmp_path / "speed.json", {"n": 3}, "| n |\n|--:|\n| 3 |\n\n")
    assert json.loads((tmp_path / "speed.json").read_text()) == {"n": 3}
    assert (tmp_path / "speed.md").read_text() == "| n |\n|--:|\n| 3 |\n"


def test_other_settings_are_refused_by_name(tmp_path):
    begin_or_resume(tmp_path / "asked.json", {"n": 9, "seed": 0}, what="study")
    with pytest.raises(ValueError, match=rf"resume the study in {tmp_path}; found other values of n, seed\."):
        begin_or_resume(tmp_path / "asked.json", {"n": 8, "seed": 1}, what="study")


def test_a_finished_cell_is_read_back_and_not_made_again(tmp_path):
    calls = []
    for _ in range(2):
        store = Store(tmp_path / "cells")
        assert store.json("one", {"n": 2}, lambda: calls.append("json") or {"k": [1, None]}) == {"k": [1, None]}
        arrays = store.arrays("two", {"n": 2}, lambda: calls.append("arrays") or {"p": np.arange(3)})
        assert arrays["p"].tolist() == [0, 1, 2]
        assert store.seconds["one"] >= 0
    assert calls == ["json", "arrays"]
    assert {file.name for file in (tmp_path / "cells").iterdir()} == {"one.json", "two.npz"}


def test_a_cell_of_other_settings_is_refused_until_the_store_is_cleared(tmp_path):
    store = Store(tmp_path)
    store.json("one", {"n": 2}, lambda: 1)
    store.save("two", {"n": 2}, p=np.arange(3))
    with pytest.raises(ValueError, match=r"finished cell one in .*; found other values of n"):
        store.json("one", {"n": 3}, lambda: 1)
    with pytest.raises(ValueError, match=r"finished cell two in .*; found other values of n"):
        store.load("two", {"n": 3})
    store.clear()
    assert store.load("two", {"n": 3}) is None
    assert store.json("one", {"n": 3}, lambda: 4) == 4


def test_a_cell_without_settings_is_refused_like_one_of_other_settings(tmp_path):
    (tmp_path / "one.json").write_text('{"seconds": 1.0, "cell": 1}')
    np.savez(tmp_path / "two.npz", p=np.arange(3))
    store = Store(tmp_path)
    with pytest.raises(ValueError, match=r"finished cell one in .*; found other values of n\..*--fresh"):
        store.json("one", {"n": 2}, lambda: 1)
    with pytest.raises(ValueError, match=r"finished cell two in .*; found other values of n\."):
        store.load("two", {"n": 2})


def test_only_the_writing_process_leaves_files(tmp_path):
    reader = Store(tmp_path / "cells", writes=False)
    assert reader.json("one", {}, lambda: 1) == 1
    assert reader.arrays("two", {}, lambda: {"p": np.arange(2)})["p"].tolist() == [0, 1]
    assert not (tmp_path / "cells").exists()
