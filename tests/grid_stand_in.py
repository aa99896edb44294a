"""Small models and pictures for tests of the grid."""

import json

import numpy as np
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification

SMALL = ["--bootstrap_samples", "20"]


def save_cnn(folder, seed=0, threshold=None):
    torch.manual_seed(seed)
    model = CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=8))
    torch.nn.init.normal_(list(model.parameters())[-2], std=1.0)  # so that verdicts differ
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    if threshold is not None:
        (folder / "operating_point.json").write_text(json.dumps({"threshold": threshold, "chosen": "by hand", "n": 9}))
    return folder


def save_pictures(folder, labels=("real", "fake"), n=9):
    """Pictures of boats and bottles, in two sizes."""
    random = np.random.default_rng(0)
    lines = ["path,label,generator,content"]
    for label in labels:
        for number in range(n):
            side = 40 if number % 3 else 32
            file = folder / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (side, 48, 3), dtype=np.uint8)).save(file)
            made = f"gan-{number % 2}" if label == "fake" else ""
            lines.append(f"{label}/{number}.png,{label},{made},{'boat' if number % 2 else 'bottle'}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def words(models, pictures, folder, *more, names=("one", "two")):
    places = [f"{name}={models / name}" for name in names]
    return ["--models", *places, "--datasets", f"boats={pictures}", *SMALL, "--output_dir", str(folder), *more]
