"""A small vision tower with random weights, and a folder of images in groups and folds, which it can tell apart."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

N = 96  # images


def image_bytes(number: int, *, is_fake: bool) -> bytes:
    """Noise for fakes and smooth colours for the others, 80 x 60 pixels."""
    generator = np.random.default_rng(number)
    shape = (60, 80, 3) if is_fake else (3, 4, 3)
    image = Image.fromarray(generator.integers(256, size=shape, dtype=np.uint8)).resize((80, 60))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def save_images(root: Path) -> Path:
    """Write N images of four to a group, in three folds, with metadata.csv."""
    rows = ["file_name,label,group,fold"]
    for number in range(N):
        label, group = ("fake", "real")[number % 2], f"owner{number // 4}"
        (root / f"{number}.png").write_bytes(image_bytes(number, is_fake=label == "fake"))
        rows.append(f"{number}.png,{label},{group},{number // (N // 3)}")
    (root / "metadata.csv").write_text("\n".join(rows))
    return root


def save_tower(place: Path) -> Path:
    """Write a tower of three layers for images of 16 pixels, and its image processor."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=16, patch_size=8))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(place)
    square = {"height": 16, "width": 16}
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square).save_pretrained(place)
    return place
