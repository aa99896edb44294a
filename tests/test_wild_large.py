"""recipes/wild_large.yaml is run as it is, on a local Hub with small towers and few images under the same names."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow
from small_multiview import image_bytes
from transformers import (
    AutoModel,
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)
from writable_hub import TOKEN, Repository, serve

from realfake_hf.detector import Detector
from realfake_hf.models.pretrained import build_multiview

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes/wild_large.yaml"
OPENFAKE, FORENSICS, COCO = "ComplexDataLab/OpenFake", "OwensLab/CommunityForensics-Small", "detection-datasets/coco"
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT = {**SMALL, "intermediate_size": 32, "vocab_size": 30, "max_position_embeddings": 8}
VISION = {**SMALL, "intermediate_size": 32, "image_size": 16, "patch_size": 8}
SQUARE = {"height": 16, "width": 16}
CARD = """---
configs:
- config_name: core
  default: true
  data_files:
  - {split: train, path: core/train-*}
  - {split: validation, path: core/validation-*}
  - {split: test, path: core/test-*}
- config_name: reddit
  data_files:
  - {split: test, path: reddit/test-*}
---
"""


def towers():
    """Models of random weights with the architectures of the Hub, and their image processors, by id."""
    torch.manual_seed(0)
    dinov2 = Dinov2Config(**SMALL, mlp_ratio=2, image_size=32, patch_size=8)
    siglip = SiglipConfig(text_config={**TEXT, "bos_token_id": 1, "eos_token_id": 2}, vision_config=VISION)
    return {
        "facebook/dinov2-large": (
            Dinov2Model(dinov2), BitImageProcessorPil(size={"shortest_edge": 18}, crop_size=SQUARE)
        ),
        "google/siglip2-large-patch16-256": (
            SiglipModel(siglip),
            SiglipImageProcessorPil(size=SQUARE, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        ),
        "openai/clip-vit-large-patch14": (
            CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=8)),
            CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=SQUARE),
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    saved = {}
    for name, (model, processor) in towers().items():
        saved[name] = tmp_path_factory.mktemp("tower")
        model.save_pretrained(saved[name])
        processor.save_pretrained(saved[name])
    return saved


def other_towers():
    """Id, layers and feature layers of each further tower that the recipe names."""
    pattern = r"--tower (\S+) --tower_layers (\d+) --feature_layers ([\d ]+)"
    return re.findall(pattern, RECIPE.read_text())


def test_the_recipe_names_three_towers_and_layers_that_they_have():
    recipe = yaml.safe_load(RECIPE.read_text())
    given = [(recipe["tower"], recipe["tower_layers"], recipe["feature_layers"])]
    given += [(name, int(layers), [*map(int, used.split())]) for name, layers, used in other_towers()]
    assert {name for name, *_ in given} == set(towers())
    assert all(max(used) == layers <= 24 for _, layers, used in given)  # of the large ones


@pytest.mark.parametrize("name", towers())
def test_features_are_class_token_and_mean_patch_token_of_each_layer(folders, name):
    model, processor = build_multiview(str(folders[name]), tower_layers=2, feature_layers=[1, 2], n_windows=1)
    image = Pillow.fromarray(np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8))
    pixel_values = processor(image, return_tensors="pt")["pixel_values"]
    assert pixel_values.shape == (1, 2, 3, 16, 16)
    reference = AutoModel.from_pretrained(folders[name]).eval()
    reference = getattr(reference, "vision_model", reference)
    with torch.inference_mode():
        hidden = reference(pixel_values=pixel_values[0], output_hidden_states=True).hidden_states
        features = model.features(pixel_values[0])
    has_class_token = "siglip" not in name
    parts = [
        part
        for layer in (1, 2)
        for part in ([hidden[layer][:, 0]] if has_class_token else []) + [hidden[layer][:, has_class_token:].mean(1)]
    ]
    torch.testing.assert_close(features, torch.cat(parts, dim=1), rtol=0, atol=0.02)  # rounded to 8 bits
    stated = towers()[name][1]
    assert (processor.image_mean, processor.image_std) == (list(stated.image_mean), list(stated.image_std))


def parquet(file, **columns):
    """Return a parquet file of columns, each a type and its values, four rows in a row group."""
    features = Features({name: kind for name, (kind, _) in columns.items()})
    rows = Dataset.from_dict({name: values for name, (_, values) in columns.items()}, features=features)
    rows.to_parquet(file, batch_size=4)
    return file.read_bytes()


def data_sets(tmp_path):
    """Few images in the columns of each data set: files by path, by id."""
    number = iter(range(1000))
    file, text, integer = tmp_path / "rows.parquet", Value("string"), Value("int64")

    def images(labels):
        return [image_bytes(next(number), is_fake=bool(label)) for label in labels]

    def openfake(n):
        labels = [0, 1] * (n // 2)
        files = [{"bytes": data, "path": None} for data in images(labels)]
        words = [("real", "fake")[label] for label in labels]
        more = {name: (text, ["x"] * n) for name in ("prompt", "model", "type", "release_date")}
        return parquet(file, image=(Image(), files), label=(text, words), **more)

    def coco(n):
        files = [{"bytes": data, "path": None} for data in images([0] * n)]
        return parquet(file, image_id=(integer, [*range(n)]), image=(Image(), files), width=(integer, [80] * n))

    forensics = parquet(
        file, image_name=(text, ["x.png"] * 16), image_data=(Value("binary"), images([0, 1] * 8)),
        model_name=(text, ["x"] * 16), split=(text, ["train"] * 16), label=(integer, [0, 1] * 8),
    )  # fmt: skip
    splits = {"train": 24, "validation": 8, "test": 8}
    return {
        OPENFAKE: {
            "README.md": CARD.encode(),
            "reddit/test-00000-of-00001.parquet": openfake(2),
            **{f"core/{split}-00000-of-00001.parquet": openfake(n) for split, n in splits.items()},
        },
        FORENSICS: {"data/train-00000-of-00001.parquet": forensics},
        COCO: {f"data/{split}-00000-of-00001.parquet": coco(n) for split, n in (("train", 12), ("val", 4))},
    }


TRAIN = """
import json, sys, train
from realfake_hf.hub.__main__ import main as publish
for words in json.loads(sys.argv[1]):
    if status := train.main(words):
        sys.exit(status)
folder = words[words.index("--output_dir") + 1]
sys.exit(publish(["--model_dir", folder, "--hub_model_id", "user/large"]))
"""


@pytest.mark.slow
def test_the_recipe_trains_for_two_steps_on_each_tower_and_the_model_is_published(folders, tmp_path):
    sets, few = data_sets(tmp_path), ["--max_steps", "2", "--per_device_train_batch_size", "8"]
    few += ["--bootstrap_samples", "20", "--tower_layers", "3", "--feature_layers", "2", "3"]
    own, runs = yaml.safe_load(RECIPE.read_text())["tower"], {}
    for number, name in enumerate((own, *(name for name, *_ in other_towers()))):
        other = ["--tower", name] if number else []
        runs[name] = ["--config", str(RECIPE), *few, *other, "--output_dir", str(tmp_path / f"run-{number}")]
    with serve() as (hub, address):
        models = {name: {file.name: file.read_bytes() for file in place.iterdir()} for name, place in folders.items()}
        for kind, repositories in (("dataset", sets), ("model", models)):
            for name, files in repositories.items():
                hub.repositories[kind, name] = Repository(kind, private=False)
                hub.repositories[kind, name].commit("main", files)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "REALFAKE_"))}
        environment = {**kept, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, json.dumps([*runs.values()])], env=environment, capture_output=True,
            text=True, check=False, timeout=280, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    image = image_bytes(1, is_fake=True)
    for name, words in runs.items():
        record = json.loads(Path(words[-1], "run.json").read_text())
        counts = {split: (rows["n_real"], rows["n_fake"]) for split, rows in record["data"].items()}
        assert counts == {"train": (12 + 8 + 12, 12 + 8), "validation": (4 + 4, 4), "test": (4, 4)}
        repository = hub.repositories["model", name]
        weights = repository.files("main")["model.safetensors"]
        digests = {"model.safetensors": hashlib.sha256(weights).hexdigest()}
        assert record["base_weights"] == {"name": name, "revision": repository.names["main"], "files": digests}
        detector = Detector.from_pretrained(words[-1])
        assert type(detector.model.tower) is type(getattr(towers()[name][0], "vision_model", towers()[name][0]))
        assert 0 <= detector.probabilities(image)[0] <= 1
    read = {path for method, path in hub.requests if method == "GET" and path.endswith(".parquet")}
    assert len(read) == 6
    assert not list((tmp_path / "home/hub").rglob("*.parquet"))  # streamed, not downloaded
    published = hub.repositories["model", "user/large"].files("main")
    assert {"multiview.py", "views.py", "model.safetensors", "operating_point.json"} <= set(published)
    card = published["README.md"].decode()
    assert f"base_model: {name}" in card
    assert 'model="user/large", trust_remote_code=True' in card
    assert f"--tower {name} --tower_layers 3 --feature_layers 2 3" in card
