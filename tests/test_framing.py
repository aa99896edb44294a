"""What processors leave of an image, against their published settings."""

import pytest
import transformers
from transformers import AutoImageProcessor

from realfake_hf.data.framing import measure_framing
from realfake_hf.models import MultiViewImageProcessor
from realfake_space.models import MODELS

PHOTO = (640, 480)
CROPPED = (480 / 640) * (224 / 256) ** 2


@pytest.mark.parametrize(
    ("name", "settings", "part", "size", "share"),
    [
        ("ViT", {}, PHOTO, (224, 224), 1),  # resized without regard to its shape
        ("CLIP", {}, (480, 480), (224, 224), 480 / 640),  # shorter side resized, then cropped
        ("Levit", {}, (420, 420), (224, 224), CROPPED),  # resized to 256 / 224 of the size, then cropped
        ("Bit", {"size": {"shortest_edge": 256}}, (420, 420), (224, 224), CROPPED),  # as of DINOv2
        ("ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (420, 420), (224, 224), CROPPED),
        ("DeiT", {}, (560, 420), (224, 224), (224 / 256) ** 2),  # resized without regard to its shape, then cropped
        ("CLIP", {"do_center_crop": False}, PHOTO, (299, 224), 1),  # only the shorter side is given
        ("MobileViT", {}, (480, 480), (224, 224), 480 / 640),  # channels in another order
        ("Siglip2", {}, PHOTO, (296, 222), 1),  # a number of patches, and no size
    ],
)
def test_the_part_that_a_model_sees_is_that_of_its_processor(name, settings, part, size, share):
    view = measure_framing(getattr(transformers, f"{name}ImageProcessorPil")(**settings)).view(PHOTO)
    assert view.part == pytest.approx(part, abs=2)
    assert view.size == pytest.approx(size, abs=1)
    assert view.share == pytest.approx(share, abs=0.01)


def test_high_images_are_seen_like_wide_ones():
    for name in ("CLIP", "DeiT", "Siglip2"):
        framing = measure_framing(getattr(transformers, f"{name}ImageProcessorPil")())
        wide, high = framing.view((900, 300)), framing.view((300, 900))
        assert (wide.part[::-1], wide.size[::-1], wide.share) == (high.part, high.size, high.share)


def test_a_processor_of_several_views_has_no_single_part():
    assert measure_framing(MultiViewImageProcessor()) is None


def test_the_processor_of_the_page_sees_whole_images():
    view = measure_framing(AutoImageProcessor.from_pretrained(MODELS / "cifake-vit")).view(PHOTO)
    assert (view.part, view.size, view.share) == (PHOTO, (32, 32), 1)
