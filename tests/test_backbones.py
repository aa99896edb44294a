"""Every class of transformers is fine-tuned, judged and explained as docs/backbones.md says."""

import math

import pytest
from backbone_table import PAGE, TOLERANCE, few_images, is_stated, outcome_of, page, reasons, row
from PIL import Image
from tiny_classifiers import FAMILIES

from realfake_hf.detector import Detector


@pytest.fixture(scope="module")
def images():
    return few_images()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_does_what_its_row_says(name, images, tmp_path):
    outcome = outcome_of(name, images, tmp_path)
    written = PAGE.read_text(encoding="utf-8").splitlines()
    assert row(name, outcome) in written
    for reason, what in reasons(outcome).items():
        assert reason.startswith("expected ")
        assert is_stated(name, what, reason, written), reason
    if outcome.refusal:
        FAMILIES[name].save(tmp_path / "model")
        with pytest.raises(ValueError, match="expected "):
            Detector.from_pretrained(tmp_path / "model").predict(Image.new("RGB", (64, 64)))
        return
    assert all(math.isfinite(loss) for loss in outcome.losses)
    everything, head_only = outcome.moved
    assert all(key.startswith(outcome.head) for key in head_only)
    assert len(head_only) == sum(key.startswith(outcome.head) for key in everything)
    assert len(everything) > 3 * len(head_only)
    assert outcome.difference <= TOLERANCE


def test_the_page_has_a_row_for_each_family():
    written = PAGE.read_text(encoding="utf-8")
    assert [line.split(" | ")[0] for line in written.splitlines() if "`" in line and line.startswith("| ")][1:] == [
        f"| {name}" for name in FAMILIES
    ]
    assert written.startswith(page({}).partition("\n| family")[0])
