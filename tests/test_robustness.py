"""Changes do what they say, step by step, and the grid measures every model on every one of them."""

import json

import numpy as np
import pytest
from PIL import Image
from small_grid import arguments, save_cnn, save_images

import crosseval
from realfake_hf.crosseval.datasets import load_dataset, sample_leak_free
from realfake_hf.crosseval.models import load_model
from realfake_hf.crosseval.robustness import Robustness
from realfake_hf.crosseval.scoring import score_all
from realfake_hf.data import augment
from realfake_hf.data.corruptions import CORRUPTIONS, seed_of_image
from realfake_hf.detector import Detector
from realfake_hf.estimate import from_plain
from realfake_hf.metrics.report import make_report

pytestmark = pytest.mark.slow

STEPS = [(kind, strength) for kind, found in CORRUPTIONS.items() for strength in found.steps]


@pytest.fixture(scope="module")
def photo():
    x, y = np.meshgrid(np.linspace(0, 6, 32), np.linspace(0, 4, 32))
    waves = 127 + 100 * np.stack([np.sin(3 * x + y), np.sin(x * y), np.cos(5 * y)], axis=-1)
    grain = np.random.default_rng(0).integers(-20, 21, waves.shape)  # that the weakest blur shows
    return Image.fromarray((waves + grain).clip(0, 255).astype(np.uint8))


def distance(one, two):
    return np.abs(np.asarray(one, dtype=np.float64) - np.asarray(two)).mean()


@pytest.mark.parametrize(("kind", "strength"), STEPS)
def test_a_change_keeps_the_size_and_is_the_same_each_time(kind, strength, photo):
    first, second = (CORRUPTIONS[kind].apply(photo, strength, 7) for _ in range(2))
    assert (first.size, first.mode) == ((32, 32), "RGB")
    assert first.tobytes() == second.tobytes() != photo.tobytes()


@pytest.mark.parametrize("kind", [kind for kind, found in CORRUPTIONS.items() if len(found.steps) > 1])
def test_each_step_changes_more_than_the_one_before(kind, photo):
    far = [distance(photo, CORRUPTIONS[kind].apply(photo, strength, 0)) for strength in CORRUPTIONS[kind].steps]
    assert far == sorted(far)
    assert far[0] > 0


def test_the_steps_are_those_of_the_training_changes(photo):
    pixels = np.asarray(photo)
    assert np.array_equal(CORRUPTIONS["jpeg"].apply(photo, 40, 0), augment.jpeg(pixels, quality=40))
    assert np.array_equal(CORRUPTIONS["blur"].apply(photo, 0.8, 0), augment.blur(pixels, sigma=0.8))
    assert np.array_equal(CORRUPTIONS["noise"].apply(photo, 8, 3), augment.noise(pixels, sigma=8, seed=3))
    shrunk = photo.resize((24, 24), Image.Resampling.BILINEAR).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(CORRUPTIONS["rescale"].apply(photo, 24 / 32, 0), shrunk)


def test_turned_twice_a_image_is_itself_and_a_crop_is_its_middle(photo):
    for kind in ("mirror", "upside down"):
        change = CORRUPTIONS[kind].apply
        assert change(change(photo, 1, 0), 1, 0).tobytes() == photo.tobytes()
    flags = Image.new("RGB", (32, 32), "red")
    flags.paste("blue", (4, 4, 28, 28))
    assert np.unique(np.asarray(CORRUPTIONS["crop"].apply(flags, 24 / 32, 0)).reshape(-1, 3), axis=0).tolist() == [
        [0, 0, 255]
    ]


def test_noise_differs_from_image_to_image_and_seed_to_seed():
    seeds = {seed_of_image(digest, seed) for digest in ("a" * 64, "b" * 64) for seed in (0, 1)}
    assert len(seeds) == 4
    assert seed_of_image("a" * 64, 0) == seed_of_image("a" * 64, 0)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_cnn(folder / "one", threshold=0.45)
    save_cnn(folder / "two", seed=1)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return save_images(tmp_path_factory.mktemp("data") / "boats")


@pytest.fixture(scope="module")
def done(models, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grids") / "grid"
    asked = ["--protocols", "native", "--robustness", "boats", "--robustness_n", "12"]
    assert crosseval.main(arguments(models, images, folder, *asked)) == 0
    return folder


def test_the_grid_measures_every_model_at_every_step_on_the_same_images(done, models, images):
    found = [from_plain(Robustness, one) for one in json.loads((done / "grid.json").read_text())["robustness"]]
    assert [one.model for one in found] == ["one", "two"]
    drawn = sample_leak_free(load_dataset("boats", str(images), seed=0), 12, seed=0)
    assert [(one.n_real, one.n_fake) for one in found] == [(6, 6)] * 2
    assert [(step.kind, step.strength) for step in found[0].steps] == STEPS
    noisy = [
        CORRUPTIONS["noise"].apply(row["image"].convert("RGB"), 32, seed_of_image(row["sha256"], 0))
        for row in drawn.rows
    ]
    p_fake = Detector.from_pretrained(models / "one").probabilities(noisy)
    report = make_report(drawn.is_fake, p_fake, threshold=0.45, bootstrap_samples=20)
    step = found[0].of_kind("noise")[-1]
    assert (step.roc_auc.value, step.accuracy_fake.value) == (report.roc_auc.value, report.accuracy_fake.value)


def test_the_page_has_a_row_a_step_and_the_figure_is_drawn(done):
    text = (done / "grid.md").read_text()
    assert "| corruption | one: ROC AUC | one: balanced accuracy | two: ROC AUC | two: balanced accuracy |" in text
    assert all(f"| {kind}{f' {strength:g}' if CORRUPTIONS[kind].unit else ''} |" in text for kind, strength in STEPS)
    assert "boats train: 6 REAL and 6 FAKE leak-free images at each step" in text
    assert (done / "robustness-boats.png").stat().st_size > 10_000


def test_finished_steps_are_kept(done, models, images, monkeypatch):
    def again(*_, **__):
        raise AssertionError

    monkeypatch.setattr("realfake_hf.crosseval.scoring.score_all", again)
    asked = ["--protocols", "native", "--robustness", "boats", "--robustness_n", "12"]
    before = (done / "grid.json").read_text()
    assert crosseval.main(arguments(models, images, done, *asked)) == 0
    assert (done / "grid.json").read_text() == before


def test_a_change_is_made_after_the_protocol_and_before_the_model(models, images):
    dataset = load_dataset("boats", str(images), seed=0)
    model = load_model("one", str(models / "one"))
    grey = score_all([model], dataset, "native", change=lambda image, _: Image.new("RGB", image.size, "grey"))["one"]
    assert len(set(grey.tolist())) <= 2  # two sizes of image
    assert len(set(score_all([model], dataset, "native")["one"].tolist())) > 2


def test_a_data_set_that_is_not_in_the_grid_cannot_be_asked_for(capsys):
    with pytest.raises(SystemExit):
        crosseval.main(["--models", "a=b", "--datasets", "c=d", "--output_dir", "out", "--robustness", "e"])
    assert "--robustness from --datasets (c); found e." in capsys.readouterr().err.replace("\n", " ")
