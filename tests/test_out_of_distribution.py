import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from realfake_hf.metrics.out_of_distribution import FAMILIARITY, Familiarity, fit_familiarity
from realfake_hf.training import posthoc

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def clouds():
    random = np.random.default_rng(0)
    is_fake = np.arange(4000) % 2 == 1
    shape = np.array([[2.0, 0.6, 0], [0, 0.5, 0], [0, 0, 1]])
    centre = np.where(is_fake[:, None], 4.0, 0.0)
    return (random.normal(size=(4000, 3)) @ shape + centre).astype(np.float32), is_fake


def test_a_hundredth_of_the_validation_is_far_and_of_others_like_it(clouds):
    points, is_fake = clouds
    found = fit_familiarity(points[:2000], is_fake[:2000], points[2000:3000], sha256="x")
    assert found.is_far(points[2000:3000]).sum() == 10
    assert found.is_far(points[3000:]).mean() == pytest.approx(0.01, abs=0.01)
    assert (found.n, found.n_validation, found.far, found.sha256) == (2000, 1000, 0.01, "x")


def test_the_distance_is_mahalanobis_to_the_nearer_mean(clouds):
    points, is_fake = clouds
    found = fit_familiarity(points, is_fake, points, sha256="x")
    means = [points[is_fake == label].mean(axis=0) for label in (False, True)]
    around = np.concatenate([points[is_fake == label] - means[label] for label in (False, True)])
    inverse = np.linalg.inv(around.T @ around / len(around))
    plain = [min(np.sqrt((one - mean) @ inverse @ (one - mean)) for mean in means) for one in points[:50]]
    assert found.distances(points[:50]) == pytest.approx(plain, rel=0.01)  # shrinkage is small with 4,000 points
    assert found.distances(found.means) == pytest.approx([0, 0], abs=1e-6)


def test_scale_and_turns_of_the_embedding_change_nothing(clouds):
    points, is_fake = clouds
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    one = fit_familiarity(points, is_fake, points, sha256="x")
    other = fit_familiarity(3 * points @ turn, is_fake, 3 * points @ turn, sha256="x")
    assert one.distances(points[:20]) == pytest.approx(other.distances(3 * points[:20] @ turn), rel=1e-4)


def test_saved_and_loaded_is_the_same(clouds, tmp_path):
    points, is_fake = clouds
    found = fit_familiarity(points, is_fake, points, sha256="x")
    found.save(tmp_path)
    again = Familiarity.load(tmp_path / FAMILIARITY)
    assert again.distances(points) == pytest.approx(found.distances(points), rel=1e-5)
    assert (again.limit, again.n, again.sha256) == (found.limit, found.n, "x")


def test_bad_input_is_refused_in_words(clouds, tmp_path):
    points, is_fake = clouds
    with pytest.raises(ValueError, match=r"share in \(0, 1\).*found 0"):
        fit_familiarity(points, is_fake, points, far=0, sha256="x")
    with pytest.raises(ValueError, match="both labels; found 4,000 of one"):
        fit_familiarity(points, np.zeros(4000, bool), points, sha256="x")
    found = fit_familiarity(points, is_fake, points, sha256="x")
    with pytest.raises(ValueError, match=r"embeddings \(n, 3\); found \(2, 5\)"):
        found.distances(np.zeros((2, 5)))
    (tmp_path / FAMILIARITY).write_bytes(b"spoilt")
    with pytest.raises(ValueError, match=FAMILIARITY):
        Familiarity.load(tmp_path / FAMILIARITY)
    with pytest.raises(FileNotFoundError):
        Familiarity.load(tmp_path / "missing")


def test_the_code_is_named_as_it_was_before_the_models_folder_changed(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    facts = {
        "n": 2,
        "n_validation": 1,
        "far": 0.01,
        "sets": {"demo": {"far": {"value": 0.5, "n": 2}, "roc_auc": None}},
    }
    monkeypatch.setattr(posthoc, "environment", lambda: {"commit": "dirty" if any(folder.iterdir()) else "clean"})
    monkeypatch.setattr(posthoc, "fit", lambda place, **_: (place / FAMILIARITY).write_bytes(b""))
    monkeypatch.setattr(posthoc, "measure", lambda *_: facts)
    monkeypatch.setattr("realfake_hf.crosseval.datasets.load_dataset", Mock())
    monkeypatch.setattr("realfake_hf.detector.Detector", Mock())
    file = tmp_path / "familiarity.json"
    assert posthoc.main(["--models", f"cnn={folder}", "--datasets", "demo=demo", "--output_file", str(file)]) == 0
    assert json.loads(file.read_text())["commit"] == "clean"
    assert "| cnn | demo | 2 | 0.500 |  |" in file.with_suffix(".md").read_text()


def test_the_table_holds_every_row_of_the_results():
    results = json.loads((ROOT / "results/familiarity.json").read_text())
    table = posthoc.to_markdown(results)
    for model, facts in results["models"].items():
        for name, row in facts["sets"].items():
            assert f"| {model} | {name} | {row['far']['n']:,} | {row['far']['value']:.3f} (" in table
