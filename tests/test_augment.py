import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from transformers import TrainerState

from realfake_hf.data import augment
from realfake_hf.data.augment import Augmentation, blur, blur_sigmas, jpeg, noise, rescale
from realfake_hf.training.callbacks import EpochAugmentation

EVERYTHING = Augmentation(flip=True, crop_padding=3, robust_share=0.7, hidden_share=0.5, seed=5)
WORD = 2**64


def random_pictures(n=40, height=12, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def copies(n, picture):
    return np.broadcast_to(picture, (n, *picture.shape))


def smooth_picture(size=32):
    """An image with large shapes and some noise, away from black and white."""
    grid = np.linspace(0, 2 * np.pi, size)
    waves = 128 + 40 * np.sin(grid)[:, None, None] * np.cos(grid)[None, :, None] * np.array([1, 0.5, -1])
    grain = np.random.default_rng(1).normal(0, 5, (size, size, 3))
    return np.rint(waves + grain).astype(np.uint8)


def changed(before, after):
    return (before != after).any(axis=(1, 2, 3))


def windows_of(picture, padding):
    """Return the position of every window of the padded image by its bytes."""
    height, width, _ = picture.shape
    padded = np.pad(picture, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    places = [(top, left) for top in range(2 * padding + 1) for left in range(2 * padding + 1)]
    return {padded[top : top + height, left : left + width].tobytes(): (top, left) for top, left in places}


def hashed(*words):
    """SplitMix64 in plain Python, mixing in one word at each step."""
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) % WORD
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % WORD
        state = (state ^ state >> 27) * 0x94D049BB133111EB % WORD
        state ^= state >> 31
    return state


shapes = st.tuples(st.integers(1, 6), st.integers(1, 20), st.integers(1, 20))
augmentations = st.builds(
    Augmentation,
    flip=st.booleans(),
    crop_padding=st.just(0),
    robust_share=st.sampled_from([0.0, 0.3, 1.0]),
    hidden_share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(-(2**40), 2**70),
)


def test_without_augmentation_the_pixels_are_copied_unchanged():
    pixels = random_pictures()
    augmented = Augmentation(seed=3)(pixels, np.arange(40), epoch=2)
    assert np.array_equal(augmented, pixels)
    assert not np.shares_memory(augmented, pixels)


@settings(max_examples=60)
@given(shape=shapes, augmentation=augmentations, data=st.data())
def test_shape_dtype_and_input_are_unchanged_at_any_size(shape, augmentation, data):
    padding = data.draw(st.integers(0, min(shape[1:]) - 1))
    pixels = random_pictures(*shape)
    pixels.setflags(write=False)
    before = pixels.copy()
    rows = np.arange(100, 100 + len(pixels))
    augmented = replace(augmentation, crop_padding=padding)(pixels, rows, epoch=1)
    assert (augmented.shape, augmented.dtype, type(augmented)) == (pixels.shape, np.uint8, np.ndarray)
    assert augmented.flags.c_contiguous
    assert augmented.flags.writeable
    assert np.array_equal(pixels, before)


@settings(max_examples=40)
@given(order=st.permutations(range(12)), sizes=st.lists(st.integers(1, 5), min_size=12, max_size=12))
def test_augmentation_does_not_depend_on_batches_or_their_order(order, sizes):
    pixels, rows = random_pictures(12), np.arange(12) * 1000
    together = EVERYTHING(pixels, rows, epoch=4)
    while order:
        batch, order = order[: sizes[0]], order[sizes[0] :]
        assert np.array_equal(EVERYTHING(pixels[batch], rows[batch], epoch=4), together[batch])
        sizes = sizes[1:]


def test_augmentation_does_not_depend_on_the_other_images_of_the_batch():
    pixels, others = random_pictures(), random_pictures(seed=1)
    others[7] = pixels[7]
    one, other = (EVERYTHING(batch, np.arange(40), epoch=0) for batch in (pixels, others))
    assert np.array_equal(one[7], other[7])


def test_equal_seed_epoch_and_row_give_equal_results():
    pixels = copies(2, random_pictures(1)[0])
    first, second = EVERYTHING(pixels, np.array([9, 9]), epoch=3)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("other", ["seed", "epoch", "row"])
def test_another_seed_epoch_or_row_gives_another_result(other):
    pixels, rows = random_pictures(2000, 2, 2), np.arange(2000)
    base = Augmentation(flip=True)
    seed, epoch, shift = ((other == name) * 1 for name in ("seed", "epoch", "row"))
    one = changed(pixels, base(pixels, rows, epoch=0))
    two = changed(pixels, replace(base, seed=seed)(pixels, rows + shift, epoch=epoch))
    assert abs((one == two).mean() - 0.5) < 0.05


@pytest.mark.parametrize("seed", [0, 7, -1, 2**64 + 7])
def test_flips_agree_with_splitmix64_in_plain_python(seed):
    pixels = random_pictures(64)
    rows = np.arange(64) * 977
    flipped = changed(pixels, Augmentation(flip=True, seed=seed)(pixels, rows, epoch=6))
    assert flipped.tolist() == [hashed(seed % WORD, 6, row, 0) < WORD // 2 for row in rows.tolist()]


def test_splitmix64_agrees_with_its_published_first_number():
    assert hashed(0) == 0xE220A8397B1DCDAF


def test_about_half_of_the_images_are_flipped():
    pixels = random_pictures(4000, 3, 4)
    augmented = Augmentation(flip=True)(pixels, np.arange(4000), epoch=0)
    mirrored = changed(pixels, augmented)
    assert abs(mirrored.mean() - 0.5) < 0.03
    assert np.array_equal(augmented[mirrored], pixels[mirrored][:, :, ::-1])


@pytest.mark.parametrize(("height", "width", "padding"), [(7, 5, 3), (5, 7, 2), (4, 3, 1)])
def test_a_crop_is_a_window_of_the_padded_image_and_every_window_occurs(height, width, padding):
    picture = random_pictures(1, height, width)[0]
    cropped = Augmentation(crop_padding=padding)(copies(4000, picture), np.arange(4000), epoch=0)
    places = windows_of(picture, padding)
    drawn = [places[crop.tobytes()] for crop in cropped]  # a KeyError would be a crop that is no window
    expected = len(drawn) / (2 * padding + 1) ** 2
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == (2 * padding + 1) ** 2
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_a_crop_does_not_wrap_around():
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[0], picture[:, 0] = 255, 255
    cropped = Augmentation(crop_padding=3)(copies(300, picture), np.arange(300), epoch=0)
    assert not cropped[:, -1, -1].any()


@pytest.mark.parametrize("last", [{"hidden_share": 0.5}, {"hidden_share": 0.5, "robust_share": 0.7}])
def test_corruption_follows_the_crop_and_hidden_cells_come_last(last):
    pixels, rows = random_pictures(), np.arange(40)
    before = replace(EVERYTHING, **dict.fromkeys(last, 0.0))
    after = Augmentation(**last, seed=EVERYTHING.seed)
    expected = after(before(pixels, rows, epoch=1), rows, epoch=1)
    assert np.array_equal(EVERYTHING(pixels, rows, epoch=1), expected)


def test_flip_crop_and_corruption_are_independent():
    n, picture = 3000, random_pictures(1, 4, 4)[0]
    pixels, rows = copies(n, picture), np.arange(n)
    crops = Augmentation(crop_padding=1)(pixels, rows, epoch=0)
    places = windows_of(picture, 1)
    columns = [
        changed(pixels, Augmentation(flip=True)(pixels, rows, epoch=0)),
        changed(pixels, Augmentation(robust_share=0.5)(pixels, rows, epoch=0)),
        *np.transpose([places[crop.tobytes()] for crop in crops]),
    ]
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlations).max() < 0.08


@pytest.mark.parametrize(("share", "tolerance"), [(0.3, 0.04), (0.0, 0), (1.0, 0)])
def test_the_requested_share_of_images_is_corrupted(share, tolerance):
    pixels = random_pictures(2000, 8, 8)
    augmented = Augmentation(robust_share=share)(pixels, np.arange(2000), epoch=0)
    assert abs(changed(pixels, augmented).mean() - share) <= tolerance


def test_corruptions_and_strengths_are_uniform(monkeypatch):
    drawn = {"quality": [], "blur": [], "noise": [], "factor": []}
    monkeypatch.setattr(augment, "jpeg", lambda picture, *, quality: drawn["quality"].append(quality) or picture)
    monkeypatch.setattr(augment, "blur", lambda picture, *, sigma: drawn["blur"].append(sigma) or picture)
    monkeypatch.setattr(augment, "noise", lambda picture, *, sigma, **_: drawn["noise"].append(sigma) or picture)
    monkeypatch.setattr(augment, "rescale", lambda picture, *, factor: drawn["factor"].append(factor) or picture)
    Augmentation(robust_share=1.0)(random_pictures(8000, 32, 32), np.arange(8000), epoch=0)
    ends = {"quality": (30, 100), "blur": (0.3, 1.5), "noise": (2, 16), "factor": (0.5, 1)}
    for name, values in drawn.items():
        low, high = ends[name]
        shares = (np.array(values) - low) / (high - low)
        assert abs(len(values) - 2000) < 200
        assert abs(shares.mean() - 0.5) < 0.03
        assert 0 <= shares.min() < 0.01
        assert 0.99 < shares.max() <= 1
    assert set(drawn["quality"]) == set(range(30, 101))


def test_a_corrupted_image_is_the_result_of_one_corruption():
    picture = smooth_picture()
    degraded = Augmentation(robust_share=1.0)(copies(400, picture), np.arange(400), epoch=0)
    files = {jpeg(picture, quality=quality).tobytes() for quality in range(30, 101)}
    scaled = {rescale(picture, factor=size / 32).tobytes() for size in range(16, 32)}
    shifts = degraded.astype(float) - picture
    lag = (shifts[:, 1:] * shifts[:, :-1]).mean(axis=(1, 2, 3)) / shifts.var(axis=(1, 2, 3))
    rest = np.array([image.tobytes() not in files | scaled for image in degraded])
    noisy = rest & (degraded.std(axis=(1, 2, 3)) > picture.std())
    assert sum(image.tobytes() in files for image in degraded) > 70
    assert sum(image.tobytes() in scaled for image in degraded) > 70
    assert noisy.sum() > 70
    assert (rest & ~noisy).sum() > 70  # blurred
    assert np.abs(lag[noisy]).max() < 0.1  # grain, and nothing of the shapes


def test_noise_differs_between_images_and_epochs():
    grey = np.full((16, 16, 3), 128, dtype=np.uint8)  # of the four, only noise changes it
    pixels, rows = copies(60, grey), np.arange(60)
    epochs = [Augmentation(robust_share=1.0)(pixels, rows, epoch=epoch) for epoch in (0, 1)]
    grains = [epoch[changed(pixels, epoch)].reshape(-1, grey.size) for epoch in epochs]
    assert min(len(grain) for grain in grains) > 5
    correlations = np.corrcoef(np.concatenate(grains)) - np.eye(sum(len(grain) for grain in grains))
    assert np.abs(correlations).max() < 0.2


def hidden_cells(before, after):
    """Which cells of 8 x 8 differ, (n, 8, 8); those that do, do so in every pixel."""
    cells = (before != after).any(axis=3).reshape(len(before), 8, before.shape[1] // 8, 8, -1)
    assert np.array_equal(cells.any(axis=(2, 4)), cells.all(axis=(2, 4)))
    return cells.any(axis=(2, 4))


def colourful(n, side=16):
    """Images none of whose pixels has the mean colour."""
    return np.where(random_pictures(n, side, side) < 128, np.uint8(0), np.uint8(255))


@pytest.mark.parametrize(("share", "most"), [(0.5, 32), (0.1, 6), (1.0, 64)])
def test_up_to_the_share_of_the_cells_is_hidden_and_every_number_is_as_likely(share, most):
    pixels = colourful(6000)
    counts = hidden_cells(pixels, Augmentation(hidden_share=share)(pixels, np.arange(6000), epoch=0)).sum(axis=(1, 2))
    expected = 6000 / (most + 1)
    frequency = np.bincount(counts, minlength=most + 1)
    assert len(frequency) == most + 1
    assert np.abs(frequency - expected).max() < 5 * np.sqrt(expected)


def test_every_cell_is_hidden_as_often_as_any_other():
    pixels = colourful(6000)
    shares = hidden_cells(pixels, Augmentation(hidden_share=0.5)(pixels, np.arange(6000), epoch=0)).mean(axis=0)
    assert np.abs(shares - 0.25).max() < 0.03


@pytest.mark.parametrize("shape", [(32, 32), (20, 47), (5, 9)])
def test_hidden_cells_have_the_mean_colour_of_their_image_and_the_others_do_not_change(shape):
    pixels = random_pictures(40, *shape)
    hidden = Augmentation(hidden_share=1.0)(pixels, np.arange(40), epoch=0)
    means = np.broadcast_to(np.rint(pixels.mean(axis=(1, 2), keepdims=True)), pixels.shape)
    is_hidden = (hidden != pixels).any(axis=3)
    assert 0.3 < is_hidden.mean() < 0.7
    assert np.array_equal(hidden[is_hidden], means[is_hidden])


def test_hiding_cells_is_independent_of_the_other_augmentations():
    n = 3000
    pixels, rows = colourful(n, 8), np.arange(n)
    hidden = Augmentation(hidden_share=1.0)(pixels, rows, epoch=0)
    cells = hidden_cells(pixels, hidden)
    columns = [cells.mean(axis=(1, 2)), cells[:, 0, 0], cells[:, 7, 7]]
    columns += [
        changed(pixels, augment(pixels, rows, epoch=0))
        for augment in (Augmentation(flip=True), Augmentation(robust_share=0.5))
    ]
    correlations = np.corrcoef(np.array(columns, dtype=float)) - np.eye(5)
    assert np.abs(correlations[3:]).max() < 0.08
    assert np.array_equal(hidden, Augmentation(hidden_share=1.0)(pixels, rows, epoch=0))


@pytest.mark.parametrize("other", ["seed", "epoch", "row"])
def test_other_cells_are_hidden_with_another_seed_epoch_or_row(other):
    pixels, rows = copies(200, colourful(1)[0]), np.arange(200)
    seed, epoch, shift = ((other == name) * 1 for name in ("seed", "epoch", "row"))
    one = hidden_cells(pixels, Augmentation(hidden_share=1.0)(pixels, rows, epoch=0))
    two = hidden_cells(pixels, Augmentation(hidden_share=1.0, seed=seed)(pixels, rows + 1000 * shift, epoch=epoch))
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.2


def test_jpeg_is_that_of_pillow_with_chroma_subsampling():
    picture = smooth_picture()
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=62, subsampling=2)
    assert np.array_equal(jpeg(picture, quality=62), np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("shape", [(32, 32), (20, 47), (47, 20)])
@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 1.5, 3.0])
def test_blur_is_the_gaussian_filter_of_scipy(shape, sigma):
    picture = random_pictures(1, *shape)[0]
    expected = ndimage.gaussian_filter(picture.astype(float), (sigma, sigma, 0), truncate=8)  # mirrored edges
    assert np.abs(blur(picture, sigma=sigma) - expected).max() < 0.51


@settings(max_examples=30)
@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), level=st.integers(0, 255))
def test_blur_and_rescaling_do_not_change_a_uniform_image(shape, level):
    picture = np.full((*shape, 3), level, dtype=np.uint8)
    for sigma in blur_sigmas(*shape):
        assert np.array_equal(blur(picture, sigma=sigma), picture)
    assert np.array_equal(rescale(picture, factor=0.6), picture)


def test_noise_has_the_requested_deviation_zero_mean_and_is_clipped():
    grey = np.full((64, 64, 3), 128, dtype=np.uint8)
    grain = noise(grey, sigma=16, seed=1).astype(float) - 128
    assert abs(grain.mean()) < 0.5
    assert abs(grain.std() - 16) < 0.5
    for level in (0, 255):  # a value that wrapped around would be far away
        even = np.full((64, 64, 3), level, dtype=np.uint8)
        assert np.abs(noise(even, sigma=16, seed=1) - float(level)).max() < 100


def test_rescaling_is_two_bilinear_resizes_of_pillow():
    picture = random_pictures(1, 20, 30)[0]
    small = Image.fromarray(picture).resize((18, 12), Image.Resampling.BILINEAR)
    expected = np.asarray(small.resize((30, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(rescale(picture, factor=0.6), expected)


def test_a_negative_padding_is_rejected():
    with pytest.raises(ValueError, match="crop_padding of 0 or more pixels; found -1"):
        Augmentation(crop_padding=-1)


@pytest.mark.parametrize("name", ["robust_share", "hidden_share"])
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_outside_of_its_range_is_rejected(name, share):
    with pytest.raises(ValueError, match=rf"{name} in \[0, 1\]; found {share}"):
        Augmentation(**{name: share})


@pytest.mark.parametrize(("height", "width"), [(4, 9), (9, 4), (3, 3)])
def test_images_smaller_than_the_padding_are_rejected(height, width):
    with pytest.raises(ValueError, match=f"crop_padding of 4 pixels; found {width}x{height} pixels"):
        Augmentation(crop_padding=4)(random_pictures(2, height, width), np.arange(2), epoch=0)


def test_each_epoch_of_a_training_has_an_augmentation_of_its_own():
    drawn = []
    loader = SimpleNamespace(dataset=SimpleNamespace(set_epoch=drawn.append))
    for epoch in (None, 1.0, 2.0):
        EpochAugmentation().on_epoch_begin(None, TrainerState(epoch=epoch), None, train_dataloader=loader)
    assert drawn == [0, 1, 2]
