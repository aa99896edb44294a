"""What was damaged since it was written is named, and made again or done without."""

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
from realfake_hf.store import damaged_files, write_checksums
from realfake_hf.training.callbacks import EpochLines


def cut_short(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def change(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [cut_short, change, lambda file: file.unlink()], ids=["cut", "changed", "gone"])
def test_damage_is_found_by_name(tmp_path, damage):
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_bytes(b"0123456789")
    note = tmp_path / "sums.json"
    assert damaged_files(note) == []
    write_checksums(files, note)
    assert damaged_files(note) == []
    damage(files[1])
    assert damaged_files(note) == ["b"]
    note.write_text("{")
    assert damaged_files(note) == ["sums.json"]


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
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, monkeypatch, caplog):
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
    first, second = sorted((tmp_path / "run").glob("checkpoint-*"), key=lambda one: int(one.name.split("-")[-1]))
    assert set(json.loads((second / "checksums.json").read_text())) >= {"model.safetensors", "optimizer.pt"}
    cut_short(second / "optimizer.pt")
    shutil.rmtree(tmp_path / "run/figures", ignore_errors=True)
    assert train.main([*words, str(tmp_path / "run")]) == 0
    assert f"{second / 'optimizer.pt'} is not as its checksum says: an earlier checkpoint is used" in caplog.text
    assert first.is_dir()
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
