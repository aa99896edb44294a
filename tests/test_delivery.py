"""Images changed as the web does it, at their own size."""

import numpy as np
import pytest
from PIL import Image

from realfake_hf.crosseval.shortcuts import ALARM, audit_shortcuts
from realfake_hf.data.delivery import CHANGES, SIDES, compress, deliver, encode, hard, limit_side, web
from realfake_hf.metrics.image_quality import measure_quality
from realfake_hf.models.views import MultiViewImageProcessor
from realfake_hf.training.features import RANDOM


def photograph(width: int = 400, height: int = 300) -> Image.Image:
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(256, size=(9, 12, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("size", [(400, 300), (1, 1), (2000, 3)])
def test_every_change_gives_an_rgb_image_decided_by_its_seed(kind, size):
    image = photograph(*size)
    before = image.tobytes()
    first, same, other = (CHANGES[kind](image, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (first.mode, image.tobytes()) == ("RGB", before)
    assert (first.size, first.tobytes()) == (same.size, same.tobytes())
    if size == (400, 300):
        assert first.tobytes() != before
        assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("size", [(30, 20), (3000, 20)])
def test_a_chain_stays_within_bounds_of_the_size(size):
    for seed in range(60):
        assert max(deliver(photograph(*size), np.random.default_rng(seed)).size) <= max(
            1.5**3 * size[0], SIDES[1] * 1.25
        )


def test_chains_mirror_half_of_the_images_and_use_every_kind(monkeypatch):
    counts = dict.fromkeys(CHANGES, 0)
    lengths = []

    def counted(kind):
        def change(image, generator):
            counts[kind] += 1
            return CHANGES[kind](image, generator)

        return change

    changes = {kind: counted(kind) for kind in CHANGES}
    monkeypatch.setattr("realfake_hf.data.delivery.CHANGES", changes)
    for seed in range(300):
        before = sum(counts.values())
        deliver(photograph(16, 12), np.random.default_rng(seed))
        lengths.append(sum(counts.values()) - before)
    assert set(lengths) == {1, 2, 3}
    assert min(counts.values()) > 50


def test_compressed_copies_have_a_new_size_and_end_compressed(monkeypatch):
    encoded = []

    def recorded(image, *, file_format, quality):
        encoded.append(file_format)
        return encode(image, file_format=file_format, quality=quality)

    monkeypatch.setattr("realfake_hf.data.delivery.encode", recorded)
    sizes = []
    for seed in range(60):
        before = len(encoded)
        image = compress(photograph(1600, 1200), np.random.default_rng(seed))
        assert 1 <= len(encoded) - before <= 2
        sizes.append(max(image.size))
    assert (min(sizes) >= SIDES[0], max(sizes) <= SIDES[1], len(set(sizes)) > 50) == (True, True, True)
    assert {"JPEG", "WEBP"} <= set(encoded)


def test_web_and_hard_limit_the_longer_side_and_never_enlarge():
    assert (web(photograph(2000, 1000)).size, hard(photograph(1000, 2000)).size) == ((768, 384), (256, 512))
    assert web(photograph(300, 200)).size == (300, 200)
    assert limit_side(photograph(300, 200), 150).size == (150, 100)


def test_lower_quality_loses_more():
    image = photograph()
    losses = [
        np.abs(np.asarray(encode(image, file_format=name, quality=quality), float) - np.asarray(image)).mean()
        for name in ("JPEG", "WEBP")
        for quality in (95, 30)
    ]
    assert losses[0] < losses[1]
    assert losses[2] < losses[3]


@pytest.mark.slow
def test_what_is_fed_does_not_tell_how_a_file_was_made(shared_data):
    """Copies of the same photographs: photographs are JPEG files of 4:3, and "generated" ones squares without loss."""
    files = sorted((shared_data / "wild" / "whole").iterdir())[::18][:150]
    processor = MultiViewImageProcessor(size=128, n_windows=2)
    views: dict[str, list[np.ndarray]] = {"plain": [], "delivered": [], "compressed": []}
    for number, file in enumerate(files):
        square = Image.open(file).convert("RGB")
        wide = square.crop((0, 0, square.width, square.height * 3 // 4))
        for is_fake, image in enumerate((encode(wide, file_format="JPEG", quality=90), square)):
            views["plain"].append(processor.views(image))
            for kind, change in RANDOM.items():
                generator = np.random.default_rng([number, is_fake])
                views[kind].append(processor.views(change(image, generator), generator.random((2, 2)).tolist()))
    labels = np.tile([False, True], len(files))
    plain, *changed = (audit_shortcuts(facts_of(each), is_fake=labels) for each in views.values())
    assert plain.worst.fact == "jpeg of view 1"  # the audit finds what is there: delivery must remove it
    assert plain.worst.balanced_accuracy.low > ALARM
    for audit in changed:
        assert audit.warning is None
        assert audit.together.balanced_accuracy.low < 0.5
        assert {fact.values for fact in audit.single if fact.fact in ("height", "width", "views")} == {1}


def facts_of(images: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Facts of views (views, height, width, 3) that are no part of what they show."""
    facts: dict[str, list[float]] = {
        name: [views.shape[axis] for views in images] for axis, name in enumerate(("views", "height", "width"))
    }
    for number in range(len(images[0])):
        for name in ("jpeg", "blockiness", "detail"):
            facts[f"{name} of view {number}"] = [
                getattr(measure_quality(Image.fromarray(views[number])), name) for views in images
            ]
    return {name: np.array(values, dtype=float) for name, values in facts.items()}
