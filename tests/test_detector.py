import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf import parallel as threads
from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.loading import load_images
from realfake_hf.detector import Detector, Verdict
from realfake_hf.metrics.calibration import scale
from realfake_hf.metrics.operating_point import Limits, OperatingPoint
from realfake_hf.models.cpu import has_fast_bfloat16, logits_of

ROOT = Path(__file__).resolve().parents[1]


def make_model(**settings):
    torch.manual_seed(0)
    return CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=8, **settings))


def make_vit(**settings):
    """A tiny ViT; without names, its labels are LABEL_0 and LABEL_1."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **shape, **settings)).eval()


def make_processor():
    return ViTImageProcessorPil(size={"height": 32, "width": 32})


@pytest.fixture(scope="module")
def detector():
    return Detector(make_model(), make_processor())


@pytest.fixture(scope="module")
def column(tmp_path_factory):
    return load_images("demo", cache_dir=tmp_path_factory.mktemp("rows"))["test"].select(range(21))["image"]


def reference(image):
    """Probability of FAKE of an RGB image, step by step."""
    small = image.resize((32, 32), Image.Resampling.BILINEAR)
    values = (torch.tensor(np.asarray(small)).permute(2, 0, 1) / 255 - 0.5) / 0.5
    with torch.no_grad():
        return make_model().eval()(values[None]).logits.softmax(dim=1)[0, 1].item()


def test_a_verdict_is_the_models_probability_of_fake(detector, column):
    found = detector.predict(column)
    assert [verdict.p_fake for verdict in found] == pytest.approx([reference(image) for image in column], abs=1e-6)
    assert [verdict.label for verdict in found] == ["FAKE" if verdict.p_fake > 0.5 else "REAL" for verdict in found]
    assert {verdict.label for verdict in detector.predict([*column, *_opposites(detector)])} == {"REAL", "FAKE"}


def _opposites(detector):
    """Plain images on both sides of one half."""
    rng = np.random.default_rng(0)
    plain = [Image.new("RGB", (32, 32), tuple(rng.integers(256, size=3).tolist())) for _ in range(50)]
    scores = detector.probabilities(plain)
    assert scores.min() < 0.5 < scores.max()
    return [plain[int(scores.argmin())], plain[int(scores.argmax())]]


def test_paths_images_arrays_and_columns_of_the_same_pixels_get_the_same_verdicts(detector, column, tmp_path):
    images = list(column)
    files = [tmp_path / f"{number}.png" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        image.save(file)
    expected = detector.predict(column)
    assert detector.predict(files) == expected
    assert detector.predict([str(file) for file in files]) == expected
    assert detector.predict(images) == expected
    assert detector.predict(image for image in images) == expected
    assert detector.predict([np.asarray(image) for image in images]) == expected
    rows = Dataset.from_dict({"image": [str(file) for file in files]})
    assert detector.predict(rows["image"]) == expected


def test_one_image_gets_a_list_of_one_verdict(detector, column, tmp_path):
    file = tmp_path / "one.png"
    column[0].save(file)
    expected = detector.predict([column[0]])
    assert [detector.predict(one) for one in (file, str(file), column[0], np.asarray(column[0]))] == [expected] * 4


def test_no_images_get_no_verdicts(detector):
    assert detector.predict([]) == []
    assert detector.probabilities(iter(())).shape == (0,)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA", "CMYK", "1"])
def test_images_of_any_mode_and_size_are_judged_as_rgb(detector, mode):
    noise = np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    assert detector.predict(image)[0].p_fake == pytest.approx(reference(image.convert("RGB")), abs=1e-6)


def test_transparency_lies_on_white(detector):
    clear = Image.new("RGBA", (32, 32), (10, 20, 30, 0))
    assert detector.predict(clear) == detector.predict(Image.new("RGB", (32, 32), "white"))


def test_a_greyscale_array_is_its_rgb_image(detector):
    grey = np.random.default_rng(0).integers(256, size=(32, 32), dtype=np.uint8)
    assert detector.predict(grey) == detector.predict(np.stack([grey] * 3, axis=-1))


def test_batch_sizes_and_neighbours_do_not_change_a_verdict(column):
    images = [*column, Image.new("RGB", (64, 48), "red")]
    whole = Detector(make_model(), make_processor()).probabilities(images)
    for size in (1, 5, len(images)):
        parts = Detector(make_model(), make_processor(), batch_size=size).probabilities(images)
        np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_images_are_taken_a_batch_for_each_core_ahead(column, monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    taken = []
    detector = Detector(make_model(), make_processor(), batch_size=2)
    verdicts = detector.stream(taken.append(image) or image for image in column)
    seen = [len(taken) for _ in verdicts]
    assert seen[:4] == [6, 6, 8, 8]  # a verdict's own batch and two beyond it
    assert seen[-1] == len(taken) == len(column)


def test_labels_in_the_other_order_are_understood_by_name(column):
    expected = Detector(make_model(), make_processor()).probabilities(column)
    turned = Detector(make_model(id2label={0: "ai-generated", 1: "human"}), make_processor()).probabilities(column)
    np.testing.assert_allclose(turned, 1 - expected, atol=1e-6)


def test_labels_that_do_not_say_real_and_fake_are_refused(tmp_path):
    make_vit().save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"LABEL_0.*id2label"):
        Detector.from_pretrained(tmp_path)


def test_other_image_classifiers_are_judged_through_the_same_door(column):
    model = make_vit(id2label={0: "FAKE", 1: "REAL"}, label2id={"FAKE": 0, "REAL": 1})
    inputs = make_processor()([image.convert("RGB") for image in column], return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits.softmax(dim=1)[:, 0].numpy()
    np.testing.assert_allclose(Detector(model, make_processor()).probabilities(column), expected, atol=1e-6)


def test_an_unreadable_file_is_named(detector, tmp_path):
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=f"cannot read {broken}: not "):
        detector.predict(str(broken))
    with pytest.raises(UnreadableImageError, match=f"cannot read {missing}: .*missing"):
        detector.predict([missing])


def test_an_unreadable_image_is_named_by_its_position(detector, column):
    with pytest.raises(UnreadableImageError, match=r"cannot read image 1: .*32-bit float"):
        detector.predict([column[0], Image.new("F", (8, 8))])


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), r"\(4, 4, 3\) of float32"),
        (np.zeros((3, 4, 4), dtype=np.uint8), r"\(3, 4, 4\) of uint8"),
        (np.zeros((4, 4, 4), dtype=np.uint8), r"\(4, 4, 4\) of uint8"),
        (np.zeros((2, 4, 4, 3), dtype=np.uint8), r"\(2, 4, 4, 3\) of uint8"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"\(0, 4, 3\) of uint8"),
    ],
)
def test_arrays_of_another_form_are_refused(detector, column, array, found):
    with pytest.raises(UnreadableImageError, match=f"cannot read image 1: .* of uint8; found {found}"):
        detector.predict([column[0], array])


@pytest.mark.parametrize(("thing", "name"), [(None, "NoneType"), ({"bytes": b""}, "dict"), (3, "int")])
def test_what_is_no_image_is_refused(detector, thing, name):
    with pytest.raises(TypeError, match=f"as image 0; found {name}"):
        detector.predict([thing])


def test_judging_keeps_no_gradients_and_changes_no_weights(detector, column):
    before = {name: value.clone() for name, value in detector.model.state_dict().items()}
    detector.predict(column)
    assert not detector.model.training
    assert all(parameter.grad is None for parameter in detector.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in detector.model.state_dict().items())


def test_a_saved_detector_gives_the_same_verdicts(detector, column, tmp_path):
    detector.model.save_pretrained(tmp_path)
    detector.processor.save_pretrained(tmp_path)
    for folder in (tmp_path, str(tmp_path)):
        loaded = Detector.from_pretrained(folder, batch_size=8)
        np.testing.assert_allclose(loaded.probabilities(column), detector.probabilities(column), atol=1e-6)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        Detector.from_pretrained(tmp_path / "nowhere")


def test_a_verdict_knows_its_confidence_and_cannot_be_changed():
    verdict = Verdict("REAL", 0.2)
    assert (verdict.confidence, Verdict("FAKE", 0.7).confidence) == (0.8, 0.7)
    with pytest.raises(FrozenInstanceError):
        verdict.p_fake = 0.9


def test_a_picture_below_the_limits_is_unsure_wherever_it_is_judged(column):
    point = OperatingPoint(0.5, "by hand", limits=Limits(short_side=40))
    detector = Detector(make_model(), make_processor(), point=point)
    images = [column[0].resize(size) for size in ((39, 80), (80, 40))]
    for found in (detector.predict(images), [one.verdict for one in detector.explain(images, method="grad_cam")]):
        assert [verdict.reasons for verdict in found] == [("size",), ()]
        assert [verdict.is_sure for verdict in found] == [False, True]


def test_probabilities_and_all_verdicts_are_calibrated_by_the_temperature(detector, column):
    raw = detector.probabilities(column)
    hot = Detector(detector.model, detector.processor, point=OperatingPoint(0.5, "by hand", temperature=2.5))
    found = hot.probabilities(column)
    assert found == pytest.approx(scale(raw, 2.5), abs=1e-6)
    assert np.abs(found - raw).max() > 0.01
    expected = pytest.approx(found.tolist(), abs=1e-6)
    for verdicts in (
        hot.predict(column),
        list(hot.stream(column)),
        [one.verdict for one in hot.explain(column, method="grad_cam")],
    ):
        assert [verdict.p_fake for verdict in verdicts] == expected
    assert [one.target for one in hot.explain(column, method="grad_cam")] == [
        one.target for one in detector.explain(column, method="grad_cam")
    ]


def test_a_temperature_of_one_changes_no_bit(detector, column):
    one = Detector(detector.model, detector.processor, point=OperatingPoint(0.5, "by hand", temperature=1.0))
    assert one.probabilities(column).tobytes() == detector.probabilities(column).tobytes()


def test_the_digest_changes_with_any_weight_and_with_nothing_else(detector):
    same, other = (Detector(copy.deepcopy(detector.model), detector.processor, batch_size=3) for _ in range(2))
    with torch.no_grad():
        next(other.model.parameters()).flatten()[0] += 1
    assert same.digest() == detector.digest()
    assert other.digest() != detector.digest()


def test_bytes_of_a_file_are_judged_as_the_file(detector, tmp_path, picture_bytes):
    (tmp_path / "a.png").write_bytes(picture_bytes(1))
    assert detector.predict(picture_bytes(1)) == detector.predict(str(tmp_path / "a.png"))
    with pytest.raises(UnreadableImageError, match="cannot read image 0: not an image file"):
        detector.predict(b"text")


def test_an_endless_stream_is_judged_as_it_comes(detector, picture_bytes):
    taken = []

    def endless():
        for seed in count():
            taken.append(seed)
            yield picture_bytes(seed)

    found = list(islice(detector.stream(endless()), 5))
    alone = detector.probabilities([picture_bytes(seed) for seed in range(5)])
    assert [one.p_fake for one in found] == pytest.approx(alone.tolist(), abs=1e-6)
    assert len(taken) <= (1 + threads.available_cores()) * detector.batch_size


@pytest.mark.skipif(not has_fast_bfloat16(), reason="this processor has no bfloat16 in hardware")
def test_verdicts_in_bfloat16_are_nearly_those_of_float32_and_maps_are_the_same(column):
    model = Path(__file__).parents[1] / "space/models/cifake-vit"
    exact, rough = (Detector.from_pretrained(model, bf16=bf16) for bf16 in (False, True))
    difference = np.abs(exact.probabilities(column) - rough.probabilities(column))
    assert 0 < difference.max() < 0.03
    ours, theirs = (one.explain(column[:4], method="rollout") for one in (exact, rough))
    assert all(np.array_equal(a.map, b.map) for a, b in zip(ours, theirs, strict=True))
    assert [each.verdict.label for each in theirs] == [each.label for each in rough.predict(column[:4])]
    assert exact.digest() == rough.digest()


@pytest.mark.skipif(not has_fast_bfloat16(), reason="this processor has no bfloat16 in hardware")
@pytest.mark.slow
def test_neighbours_do_not_change_a_verdict_in_bfloat16(column):
    rough = Detector.from_pretrained(Path(__file__).parents[1] / "space/models/cifake-vit", bf16=True)
    pixels = rough._pixel_values([column[place % len(column)].convert("RGB") for place in range(32)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of several workers has it
    try:
        with torch.inference_mode():
            whole = logits_of(rough.inference_model, pixels)
            some = [logits_of(rough.inference_model, pixels[:n]) for n in range(1, 32)]
            embeddings = rough._p_fake_and_embeddings([column[0].convert("RGB")])[1]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, whole[: len(one)]) for one in some)
    assert embeddings.shape == (1, 192)


@pytest.mark.slow
def test_threads_may_share_a_detector_and_explain_meanwhile(picture_bytes):
    vit = Detector.from_pretrained(ROOT / "space/models/cifake-vit", batch_size=4)
    images = [picture_bytes(seed, size=(32, 32)) for seed in range(8)]
    alone = vit.probabilities(images), [one.map for one in vit.explain(images, method="relevance")]
    with ThreadPoolExecutor(6) as pool:
        asked = [
            pool.submit(vit.probabilities, images) if turn % 2 else
            pool.submit(lambda: [one.map for one in vit.explain(images, method="relevance")])
            for turn in range(12)
        ]  # fmt: skip
        found = [one.result(timeout=120) for one in asked]
    for turn, one in enumerate(found):
        assert np.asarray(one) == pytest.approx(np.asarray(alone[0] if turn % 2 else alone[1]), abs=1e-5)
    assert vit.model.config._attn_implementation == "sdpa"
