"""Small models and images for tests of the grid."""

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
    torch.nn.init.normal_(list(model.parameters())[-2], std=1.0)  # so that predictions differ
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    if threshold is not None:
        (folder / "operating_point.json").write_text(json.dumps({"threshold": threshold, "chosen": "by hand", "n": 9}))
    return folder


def save_images(folder, labels=("real", "fake"), n=9):
    """Images of boats and bottles, in two sizes."""
    generator = np.random.default_rng(0)
    lines = ["path,label,generator,content"]
    for label in labels:
        for number in range(n):
            side = 40 if number % 3 else 32
            file = folder / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (side, 48, 3), dtype=np.uint8)).save(file)
            generated_by = f"gan-{number % 2}" if label == "fake" else ""
            lines.append(f"{label}/{number}.png,{label},{generated_by},{'boat' if number % 2 else 'bottle'}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def arguments(models, images, folder, *more, names=("one", "two")):
    places = [f"{name}={models / name}" for name in names]
    return ["--models", *places, "--datasets", f"boats={images}", *SMALL, "--output_dir", str(folder), *more]
