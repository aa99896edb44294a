"""Mark the entity in test images where two unsupervised segmenters agree, for the explanation study.

`python -m realfake_hf.experiments.entity_masks --output_file recipes/studies/entity_masks.npz` writes the masks of the
images on which both agree, without those that a person has struck out, and a sheet of all of them to look at.

One segmenter divides the patches in two clusters by the features of a vision transformer (Amir et al., 2021, *Deep ViT
Features as Dense Visual Descriptors*). The other follows the colours inwards from the border of the image (geodesic
saliency: Wei et al., 2012, ECCV). They share no weights, but both take what touches the border for background.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.cli import command, setting
from realfake_hf.environment import environment
from realfake_hf.estimate import to_plain
from realfake_hf.store import write_results
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image as PillowImage

    from realfake_hf.models.multiview import MultiViewForImageClassification

LAYER: Final = 6  # of the tower: later layers mark some patches of the background for their own use
FINE: Final = 64  # side of the image, in pixels, on which colours are followed
BATCH: Final = 32
COLUMNS: Final = 12  # images in a row of the sheet
TILE, GAP = 128, 8  # pixels
OUTLINE: Final = (255, 60, 0)

Mask = NDArray[np.bool_]
Image = NDArray[np.uint8]


@dataclass
class MaskArguments:
    """The images, the agreement that is asked for, and the output files."""

    data: str = setting("cifake", "The data set of the study.")
    split: str = setting("test", "Its split.")
    tower: str = setting("space/models/wild", "Folder of a model with a vision tower, for the features of patches.")
    n: int = setting(1200, "Images to segment, balanced by label and content.")
    overlap: float = setting(0.5, "Least intersection over union of the two masks.")
    smallest: float = setting(0.1, "Least share of the image that the entity covers.")
    largest: float = setting(0.45, "Greatest share, so that as much background remains.")
    excluded_file: Path = setting(
        Path("recipes/studies/entity_excluded.txt"), "Ids of images whose masks are wrong by eye, one on a line."
    )
    seed: int = setting(0, "Seed of the sample.")
    output_file: Path = setting(Path("recipes/studies/entity_masks.npz"), "The masks and the ids of their images.")
    results_file: Path = setting(Path("results/entity_masks.json"), "How many images remain.")
    sheet_file: Path = setting(Path("runs/entity_masks.png"), "All masks as outlines, to be looked at.")


def cluster_patches(features: NDArray[np.floating]) -> Mask:
    """Divide the patches of an image into two clusters, and return the one that is the entity: (rows, columns).

    The features are (rows, columns, width). The entity is the cluster with fewer patches on the border of the image.
    """
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize

    rows, columns, width = features.shape
    tokens = normalize(features.reshape(-1, width) - features.mean(axis=(0, 1)))
    part = KMeans(2, n_init=3, random_state=0).fit_predict(tokens).reshape(rows, columns) == 1
    return np.asarray(part if part[_border(part.shape)].mean() < 1 / 2 else ~part)


def geodesic_mask(image: Image) -> Mask:
    """Return the pixels of an image, (height, width, 3) uint8, that colours separate from its border: (height, width).

    The distance of a pixel is the least sum of colour differences on a path to the border; Otsu's threshold divides
    """
    from PIL import Image as Pillow
    from scipy.ndimage import gaussian_filter
    from skimage.color import rgb2lab
    from skimage.filters import sobel, threshold_otsu
    from skimage.graph import MCP_Geometric

    fine = np.asarray(Pillow.fromarray(image).resize((FINE, FINE), Pillow.Resampling.BICUBIC))
    colours = gaussian_filter(rgb2lab(fine), (1, 1, 0))
    edges = np.sqrt(sum(sobel(colours[..., channel]) ** 2 for channel in range(3)))  # type: ignore[no-untyped-call]
    starts = list(zip(*np.nonzero(_border(edges.shape)), strict=True))
    distance, _ = MCP_Geometric(edges + np.finfo(np.float32).eps).find_costs(starts)
    is_inside = distance > threshold_otsu(distance)  # type: ignore[no-untyped-call]
    return resize_mask(largest_part(is_inside), image.shape[:2])


def largest_part(mask: Mask) -> Mask:
    """Return the largest connected part of a mask with its holes filled."""
    from scipy.ndimage import binary_fill_holes, label

    parts, n = label(mask)
    largest = 1 + np.argmax(np.bincount(parts.ravel(), minlength=n + 1)[1:]) if n else 0
    return np.asarray(binary_fill_holes(parts == largest)) if n else mask


def patch_features(model: "MultiViewForImageClassification", images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the patch tokens after `LAYER` of a model's tower, (n, rows, columns, width), of enlarged images.

    The images are (n, height, width, 3) uint8.
    """
    import torch

    config: Any = model.config.tower_config
    side = config.image_size // config.patch_size
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    pixels = torch.nn.functional.interpolate(pixels, size=config.image_size, mode="bicubic", antialias=True)
    pixels = (pixels - pixels.mean((0, 2, 3), keepdim=True)) / pixels.std((0, 2, 3), keepdim=True)
    with torch.inference_mode():
        hidden = model.tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    tokens = hidden[min(LAYER, len(hidden) - 1)][:, -side * side :]
    return tokens.reshape(len(images), side, side, -1).float().numpy()  # type: ignore[no-any-return]


def resize_mask(mask: Mask, shape: Sequence[int]) -> Mask:
    """Resize a mask by area, (height, width); a pixel counts if half of it is inside."""
    from PIL import Image as Pillow

    resized = Pillow.fromarray(mask.astype(np.float32)).resize((shape[1], shape[0]), Pillow.Resampling.BILINEAR)
    return np.asarray(np.asarray(resized) > 1 / 2)


def overlap(a: Mask, b: Mask) -> float:
    """Return the intersection over union of two masks; 0 if both are empty."""
    return float((a & b).sum() / max(1, (a | b).sum()))


def mark_entities(model: "MultiViewForImageClassification", images: NDArray[np.uint8]) -> tuple[Mask, Mask]:
    """Segment images, (n, height, width, 3) uint8, by both methods: two masks (n, height, width) of each."""
    from tqdm.auto import tqdm

    shape = images.shape[1:3]
    clusters, colours = [], []
    with tqdm(total=len(images), desc="segmenting", unit="image", disable=None) as bar:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            clusters += [
                resize_mask(largest_part(cluster_patches(each)), shape) for each in patch_features(model, batch)
            ]
            colours += [geodesic_mask(image) for image in batch]
            bar.update(len(batch))
    return np.stack(clusters), np.stack(colours)


def select_masks(arguments: MaskArguments) -> tuple[dict[str, Any], "Dataset", Mask]:
    """Segment a sample, and return the counts, the images that remain, and their masks: what both methods mark."""
    from realfake_hf.data.loading import load_split
    from realfake_hf.labels import FAKE
    from realfake_hf.models.checkpoint import load_classifier
    from realfake_hf.sampling import draw_evenly

    split, rows = load_split(arguments.data, arguments.split)
    is_fake = np.asarray(rows["label"][:]) == FAKE
    rows = rows.select(draw_evenly(is_fake, rows["content"][:], arguments.n, seed=arguments.seed))
    model: Any = load_classifier(arguments.tower)
    model.eval()
    clusters, colours = mark_entities(model, np.stack([np.asarray(image) for image in rows["image"]]))
    both = clusters & colours
    agree = np.array([overlap(a, b) for a, b in zip(clusters, colours, strict=True)]) >= arguments.overlap
    area = both.mean(axis=(1, 2))
    fits = (arguments.smallest <= area) & (area <= arguments.largest)
    excluded = _excluded(arguments.excluded_file)
    is_seen_wrong = np.array([name in excluded for name in rows["id"][:]])
    kept = np.flatnonzero(agree & fits & ~is_seen_wrong)
    if not len(kept):
        raise ValueError(
            f"expected images on which both segmenters agree; found 0 of {len(rows):,} images with masks of "
            f"{arguments.smallest:.0%} to {arguments.largest:.0%} of their area. Choose other limits."
        )
    labels = np.asarray(rows["label"][:])[kept] == FAKE
    counts = {
        "split": split,
        "segmented": len(rows),
        "agree": int(agree.sum()),
        "of_a_fitting_size": int((agree & fits).sum()),
        "wrong_by_eye": int((agree & fits & is_seen_wrong).sum()),
        "kept": len(kept),
        "n_real": int((~labels).sum()),
        "n_fake": int(labels.sum()),
        "median_area": float(np.median(area[kept])),
    }
    return counts, rows.select(kept), both[kept]


def sheet(images: "Dataset", masks: Mask) -> "PillowImage":
    """Draw each image with the outline of its mask and its id, to be looked at."""
    from PIL import Image as Pillow
    from PIL import ImageDraw
    from scipy.ndimage import binary_erosion

    rows = -(-len(masks) // COLUMNS)
    page = Pillow.new("RGB", (COLUMNS * (TILE + GAP), rows * (TILE + 2 * GAP)), "white")
    draw = ImageDraw.Draw(page)
    for number, (name, image, mask) in enumerate(zip(images["id"][:], images["image"], masks, strict=True)):
        left, top = number % COLUMNS * (TILE + GAP), number // COLUMNS * (TILE + 2 * GAP)
        large = np.array(image.resize((TILE, TILE), Pillow.Resampling.NEAREST))
        inside = np.array(Pillow.fromarray(mask).resize((TILE, TILE), Pillow.Resampling.NEAREST))
        large[inside & ~binary_erosion(inside, iterations=2)] = OUTLINE
        page.paste(Pillow.fromarray(large), (left, top))
        draw.text((left, top + TILE), name, "black")
    return page


def to_markdown(results: dict[str, Any]) -> str:
    """Render how many images remain after each step."""
    steps = {
        "segmented": "segmented", "agree": "both methods agree", "of_a_fitting_size": "of a fitting size",
        "wrong_by_eye": "wrong by eye", "kept": "kept",
    }  # fmt: skip
    return markdown_table(["images", "n"], [[words, f"{results[name]:,}"] for name, words in steps.items()])


@command(MaskArguments, name="entity_masks", description=__doc__)
def main(arguments: MaskArguments) -> None:
    """Write masks, sheet and counts, and print the counts."""
    facts = environment()
    counts, images, masks = select_masks(arguments)
    np.savez_compressed(arguments.output_file, id=np.array(images["id"][:]), mask=masks)
    arguments.sheet_file.parent.mkdir(parents=True, exist_ok=True)
    sheet(images, masks).save(arguments.sheet_file)
    results = {"settings": to_plain(arguments), **facts, **counts}
    print(write_results(arguments.results_file, results, to_markdown(results)))


def _excluded(file: Path) -> set[str]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {line.split()[0] for line in lines if line.strip() and not line.startswith("#")}


def _border(shape: Sequence[int]) -> Mask:
    border = np.ones(tuple(shape), dtype=np.bool_)
    border[1:-1, 1:-1] = False
    return border


if __name__ == "__main__":
    sys.exit(main())
