from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from PIL import Image
from tiny_classifiers import FAMILIES, pictures
from torch.utils.data import DataLoader
from transformers import (
    AutoImageProcessor,
    CLIPImageProcessorPil,
    DonutImageProcessorPil,
    EfficientNetImageProcessorPil,
    MobileViTImageProcessorPil,
    Siglip2ImageProcessorPil,
    ViTImageProcessorPil,
)

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.data import pixels as pixels_module
from realfake_hf.data.augment import Augmentation
from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.loading import load_images
from realfake_hf.data.pixels import (
    ModelInput,
    Normalize,
    PixelDataset,
    cached_pixels,
    check_elongation,
    identity_collate,
    is_reproducible,
    processed,
    resize_image,
    resize_images,
)
from realfake_hf.detector import Detector
from realfake_hf.training.callbacks import p_fake_of

ROWS = 60


def processor_of(size=32, **settings):
    height, width = size if isinstance(size, tuple) else (size, size)
    return ViTImageProcessorPil(size={"height": height, "width": width}, **settings)


def grey_levels(values, processor):
    """Invert normalization and rescaling: (n, height, width, 3) in grey levels."""
    mean, deviation = (np.array(numbers).reshape(-1, 1, 1) for numbers in (processor.image_mean, processor.image_std))
    return ((np.asarray(values) * deviation + mean) / processor.rescale_factor).transpose(0, 2, 3, 1)


def as_seen_by_the_processor(pictures, processor):
    values = [processor(picture, return_tensors="np")["pixel_values"][0] for picture in pictures]
    return grey_levels(np.stack(values), processor)


def larger(images):
    """Return the same rows with images 48 pixels high and 64 wide."""
    rows = [picture.convert("RGB").resize((64, 48), Image.Resampling.NEAREST) for picture in images["image"]]
    hashes = [f"larger {name}" for name in images["sha256"]]
    features = images.select_columns(["image", "sha256"]).features
    return Dataset.from_dict({"image": rows, "sha256": hashes}, features=features)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    rows = load_images("demo", cache_dir=tmp_path_factory.mktemp("rows"))
    return rows["test"].select(range(ROWS))


@pytest.fixture
def decoded(monkeypatch):
    """Record the images that are decoded."""
    seen = []
    read = pixels_module.decode_image
    monkeypatch.setattr(pixels_module, "decode_image", lambda data: seen.append(data) or read(data))
    return seen


@pytest.fixture
def numbered():
    """Images whose left half encodes their row and whose right half is black."""
    values = np.zeros((50, 4, 6, 3), dtype=np.uint8)
    values[:, :, :3] = np.arange(1, 51, dtype=np.uint8)[:, None, None, None]
    return values


@pytest.mark.parametrize("size", [32, 24, (16, 40)])
def test_cached_pixels_agree_with_the_processor_within_one_grey_level(images, tmp_path, size):
    for rows in (images, larger(images)):
        processor = processor_of(size)
        cached = cached_pixels(rows, processor, cache_dir=tmp_path)
        expected = as_seen_by_the_processor(rows["image"], processor)
        assert cached.shape == expected.shape
        assert np.abs(cached - expected).max() < 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [50.0, 60.0, 70.0]},
    ],
)
def test_model_inputs_in_training_agree_with_the_saved_processor(images, tmp_path, settings):
    processor_of(**settings).save_pretrained(tmp_path)
    saved = AutoImageProcessor.from_pretrained(tmp_path)
    for rows in (images, larger(images)):
        fed = PixelDataset(cached_pixels(rows, saved, cache_dir=tmp_path), [0] * len(rows))
        seen = ModelInput(saved)(fed.__getitems__(range(len(rows)))["pixel_values"])
        expected = saved([picture.convert("RGB") for picture in rows["image"]], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("size", [128, 224, (80, 96)])
def test_small_images_are_stored_small_and_upscaled_like_the_processor(images, tmp_path, size, resample):
    for rows in (images, larger(images)):
        processor = processor_of(size, resample=resample)
        stored = cached_pixels(rows, processor, cache_dir=tmp_path)
        width, height = rows[0]["image"].size
        assert stored.shape == (len(rows), height, width, 3)
        seen = ModelInput(processor)(torch.from_numpy(np.array(stored)))
        levels = grey_levels(seen, processor) - as_seen_by_the_processor(rows["image"], processor)
        assert np.abs(levels).max() < 1e-3


def test_images_of_several_sizes_are_stored_at_the_size_of_the_processor(images, tmp_path):
    mixed = concatenate_datasets([images, larger(images)])
    assert cached_pixels(mixed, processor_of(128), cache_dir=tmp_path).shape == (2 * ROWS, 128, 128, 3)


def test_a_model_accepts_stored_pixels_while_the_input_is_attached(images):
    processor = processor_of()
    torch.manual_seed(0)
    model = CifakeCnnForImageClassification(CifakeCnnConfig()).eval()
    pixels = torch.from_numpy(resize_images([picture.convert("RGB") for picture in images["image"]], processor))
    handle = ModelInput(processor).attach(model)
    attached = model(pixel_values=pixels).logits
    torch.testing.assert_close(model(pixel_values=Normalize(processor)(pixels)).logits, attached)
    handle.remove()
    torch.testing.assert_close(model(pixel_values=Normalize(processor)(pixels)).logits, attached)
    with pytest.raises(ValueError, match="expected pixel_values"):
        model(pixel_values=pixels)


def test_training_and_the_detector_give_the_same_scores(images, tmp_path):
    processor = processor_of()
    torch.manual_seed(0)
    model = CifakeCnnForImageClassification(CifakeCnnConfig()).eval()
    for rows in (images, larger(images)):
        cached = cached_pixels(rows, processor, cache_dir=tmp_path)
        fed = PixelDataset(cached, [0] * len(rows)).__getitems__(range(len(rows)))
        with torch.no_grad():
            trained = p_fake_of(model(pixel_values=ModelInput(processor)(fed["pixel_values"])).logits.numpy())
        np.testing.assert_allclose(Detector(model, processor).probabilities(rows["image"]), trained, atol=1e-6)


def test_images_are_decoded_once_and_then_memory_mapped(images, tmp_path, decoded):
    first = cached_pixels(images, processor_of(), cache_dir=tmp_path)
    again = cached_pixels(images, processor_of(), cache_dir=tmp_path)
    assert len(decoded) == ROWS
    assert isinstance(again, np.memmap)
    assert (again.dtype, again.shape) == (np.uint8, (ROWS, 32, 32, 3))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 0


def test_the_default_cache_is_in_the_cache_folder_of_datasets(images, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    cached = cached_pixels(images, processor_of())
    assert [cached.filename.parent, cached.filename.suffix] == [tmp_path / "realfake-pixels", ".npy"]


def test_concurrent_callers_share_one_file_and_decode_once(images, tmp_path, decoded):
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(cached_pixels, images, processor_of(), cache_dir=tmp_path) for _ in range(4)]
        arrays = [call.result() for call in calls]
    assert len(decoded) == ROWS
    assert len({array.filename for array in arrays}) == 1
    assert {file.suffix for file in tmp_path.iterdir()} <= {".npy", ".json", ".lock"}


def test_interrupted_decoding_starts_over(images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pixels_module, "decode_image", lambda _data: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cached_pixels(images, processor_of(), cache_dir=tmp_path)
    assert not list(tmp_path.glob("*.npy"))
    cached = cached_pixels(images, processor_of(), cache_dir=tmp_path)
    np.testing.assert_array_equal(cached[3], np.asarray(images[3]["image"].convert("RGB")))


def test_the_cache_depends_on_the_geometry_but_not_the_normalization_of_the_processor(images, tmp_path):
    def file(processor, rows=images):
        return cached_pixels(rows, processor, cache_dir=tmp_path).filename

    plain = file(processor_of())
    assert file(processor_of(image_mean=[0.1] * 3, image_std=[0.2] * 3, do_rescale=False)) == plain
    assert file(processor_of(do_normalize=False)) == plain
    processor_of().save_pretrained(tmp_path / "saved")
    assert file(AutoImageProcessor.from_pretrained(tmp_path / "saved")) == plain
    others = [file(processor_of(24)), file(processor_of(resample=Image.Resampling.BICUBIC))]
    assert len({plain, *others}) == 3


def test_the_cache_depends_on_the_images_and_their_order(images, tmp_path):
    several = (images, larger(images), images.select(range(ROWS - 1, -1, -1)), images.select(range(ROWS - 1)))
    files = {cached_pixels(rows, processor_of(), cache_dir=tmp_path).filename for rows in several}
    assert len(files) == 4


def test_pixels_are_in_row_order(images, tmp_path):
    backwards = range(ROWS - 1, -1, -1)
    cached = [cached_pixels(rows, processor_of(), cache_dir=tmp_path) for rows in (images, images.select(backwards))]
    np.testing.assert_array_equal(cached[0][::-1], cached[1])


def test_a_processor_without_a_fixed_output_size_is_rejected(images, tmp_path):
    processor = ViTImageProcessorPil(do_resize=False)
    with pytest.raises(ValueError, match=r"a fixed output size; found \[\(64, 64, 3\), \(64, 96, 3\)\]"):
        cached_pixels(images, processor, cache_dir=tmp_path)


def test_images_of_the_right_size_are_unchanged(images):
    pictures = [picture.convert("RGB") for picture in images["image"][:5]]
    np.testing.assert_array_equal(
        resize_images(pictures, processor_of()), [np.asarray(picture) for picture in pictures]
    )


def test_normalization_is_per_channel_and_channels_last_in_memory():
    processor = processor_of(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7])
    batch = torch.randint(256, (2, 5, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = Normalize(processor)(batch)
    expected = (batch.permute(0, 3, 1, 2) / 255 - torch.tensor(processor.image_mean).view(3, 1, 1)) / torch.tensor(
        processor.image_std
    ).view(3, 1, 1)
    torch.testing.assert_close(values, expected)
    assert (values.dtype, values.shape) == (torch.float32, (2, 3, 5, 4))
    assert values.is_contiguous(memory_format=torch.channels_last)


CROPPED = {"size": {"shortest_edge": 64}, "crop_size": {"height": 32, "width": 32}}


class Mirroring(ViTImageProcessorPil):
    """A processor that does more than resize, crop, rescale and normalize."""

    def normalize(self, image, *args, **kwargs):
        return super().normalize(image, *args, **kwargs)[..., ::-1].copy()


SQUARE = {"size": {"height": 32, "width": 32}}


@pytest.mark.parametrize(
    "processor",
    [
        EfficientNetImageProcessorPil(**SQUARE, rescale_factor=1 / 127.5, rescale_offset=True),
        MobileViTImageProcessorPil(**SQUARE, do_center_crop=False, do_flip_channel_order=True),
    ],
    ids=["offset", "swapped channels"],
)
def test_processors_with_settings_of_their_own_are_reproduced(images, tmp_path, processor):
    cached = torch.from_numpy(np.array(cached_pixels(images, processor, cache_dir=tmp_path)))
    expected = processor([picture.convert("RGB") for picture in images["image"]], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ModelInput(processor)(cached), expected)


def test_a_processor_that_does_more_is_used_itself_and_not_cached_for(images, tmp_path):
    processor = Mirroring(size={"height": 32, "width": 32})
    assert not is_reproducible(processor)
    torch.manual_seed(0)
    model = CifakeCnnForImageClassification(CifakeCnnConfig()).eval()
    values = processor([picture.convert("RGB") for picture in images["image"]], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = p_fake_of(model(pixel_values=values).logits.numpy())
    np.testing.assert_allclose(Detector(model, processor).probabilities(images["image"]), expected, atol=1e-6)
    with pytest.raises(ValueError, match="found Mirroring, which does more"):
        cached_pixels(images, processor, cache_dir=tmp_path)


def test_the_fast_path_steps_aside_for_a_second_normalisation_after_a_crop():
    settings = {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    assert not is_reproducible(EfficientNetImageProcessorPil(**settings, include_top=True))
    assert is_reproducible(EfficientNetImageProcessorPil(**settings, include_top=False))


def test_the_fast_path_steps_aside_for_a_processor_that_turns_or_only_shrinks_images():
    settings = {"size": {"height": 64, "width": 48}, "do_pad": False}
    assert not is_reproducible(DonutImageProcessorPil(**settings, do_align_long_axis=True))
    assert not is_reproducible(DonutImageProcessorPil(**settings, do_thumbnail=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_processor_of_each_family_is_reproduced_or_refused(name):
    processor = FAMILIES[name].image_processor()
    if name in {"imagegpt", "siglip2"}:
        with pytest.raises(ValueError, match=type(processor).__name__):
            is_reproducible(processor)
        return
    assert is_reproducible(processor)
    normalize = Normalize(processor)
    for image in [Image.new("RGB", (1, 1), "red"), Image.new("RGB", (300, 20)), *pictures(5)]:
        values = normalize(torch.from_numpy(resize_images([image], processor)))
        torch.testing.assert_close(values, processed(image, processor), atol=normalize.grey_level, rtol=0)


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000)])
def test_an_elongated_image_is_refused_before_it_is_enlarged(size, tmp_path):
    processor, image = CLIPImageProcessorPil(), Image.new("RGB", size)
    for make in (resize_image, check_elongation):
        with pytest.raises(UnreadableImageError, match=f"{size[0]}x{size[1]} to .*4480000"):
            make(image, processor)
    detector = Detector(FAMILIES["clip"].build(), CLIPImageProcessorPil(**CROPPED))
    image.save(tmp_path / "strip.png")
    with pytest.raises(UnreadableImageError, match=r"strip\.png: .* too elongated"):
        detector.predict([Image.new("RGB", (64, 64)), tmp_path / "strip.png"])
    assert resize_images([Image.new("RGB", (2000, 50))], processor).shape == (1, 224, 224, 3)
    assert resize_image(image, ViTImageProcessorPil()).size == (224, 224)  # which squeezes it


def test_images_that_a_processor_gives_different_sizes_are_predicted_one_by_one():
    family = FAMILIES["textnet"]
    detector = Detector(family.build(), family.image_processor())
    each = [detector.probabilities(image)[0] for image in pictures(3)]
    np.testing.assert_allclose(detector.probabilities(pictures(3)), each, atol=1e-6)


def test_a_processor_that_returns_patches_is_refused():
    with pytest.raises(ValueError, match=r"found Siglip2ImageProcessorPil, which returns pixel_values \(1, 256, "):
        Normalize(Siglip2ImageProcessorPil())


def numbers_of(batch):
    """Return the row of each image in a batch, and whether it is flipped."""
    left, right = batch["pixel_values"][:, 0, 0, 0], batch["pixel_values"][:, 0, -1, 0]
    return [(int(max(a, b)) - 1, bool(a < b)) for a, b in zip(left, right, strict=True)]


def fed(values, *, flip=False, seed=0):
    return PixelDataset(values, list(range(len(values))), augment=Augmentation(flip=flip, seed=seed))


def test_a_batch_contains_its_rows_in_the_requested_order(numbered):
    data, order = fed(numbered), [7, 0, 49, 7]
    batch = data.__getitems__(order)
    assert [row for row, _ in numbers_of(batch)] == batch["labels"].tolist() == order
    assert (batch["pixel_values"].shape, batch["labels"].dtype) == ((4, 4, 6, 3), torch.int64)
    assert batch["pixel_values"].dtype == torch.uint8
    torch.testing.assert_close(data[7]["pixel_values"], batch["pixel_values"][0])


def test_fetching_does_not_change_the_pixels(numbered):
    before = numbered.copy()
    fed(numbered, flip=True).__getitems__(range(50))
    np.testing.assert_array_equal(numbered, before)


def test_flips_do_not_depend_on_batches_or_their_order(numbered):
    data = fed(numbered, flip=True, seed=5)
    expected = dict(numbers_of(data.__getitems__(range(50))))
    order = np.random.default_rng(0).permutation(50).tolist()
    for size in (1, 7):
        batches = [order[start : start + size] for start in range(0, 50, size)]
        assert dict(pair for batch in batches for pair in numbers_of(data.__getitems__(batch))) == expected


def test_a_flip_swaps_left_and_right(numbered):
    numbered[:, 0] = 0  # the upper row is black: a picture turned upside down would show
    flipped, plain = (fed(numbered, flip=flip).__getitems__(range(50))["pixel_values"] for flip in (True, False))
    mirrored = [torch.equal(one, other.flip(1)) for one, other in zip(flipped, plain, strict=True)]
    kept = [torch.equal(one, other) for one, other in zip(flipped, plain, strict=True)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))


def test_about_half_of_the_images_are_flipped():
    values = np.zeros((4000, 1, 2, 3), dtype=np.uint8)
    values[:, :, 0] = 1
    flips = [flip for _, flip in numbers_of(fed(values, flip=True).__getitems__(range(4000)))]
    assert 0.47 < np.mean(flips) < 0.53


def test_flips_depend_on_epoch_and_seed(numbered):
    def flips(seed, epoch):
        data = fed(numbered, flip=True, seed=seed)
        data.set_epoch(epoch)
        return tuple(numbers_of(data.__getitems__(range(50))))

    assert len({flips(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6
    assert flips(1, 2) == flips(1, 2)


def test_flips_leave_the_global_random_state_unchanged(numbered):
    before = torch.get_rng_state()
    fed(numbered, flip=True).set_epoch(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_flip_no_image_is_flipped(numbered):
    data = fed(numbered)
    for epoch in range(3):
        data.set_epoch(epoch)
        assert not any(flip for _, flip in numbers_of(data.__getitems__(range(50))))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_yields_whole_batches_and_a_shorter_last_one(numbered, workers):
    loader = DataLoader(fed(numbered, flip=True), batch_size=16, collate_fn=identity_collate, num_workers=workers)
    batches = list(loader)
    assert [len(batch["labels"]) for batch in batches] == [16, 16, 16, 2]
    found = [pair for batch in batches for pair in numbers_of(batch)]
    assert found == numbers_of(fed(numbered, flip=True).__getitems__(range(50)))
