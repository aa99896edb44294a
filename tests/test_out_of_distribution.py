import numpy as np
import pytest

from realfake_hf.metrics.out_of_distribution import FAMILIARITY, Familiarity, fit_familiarity


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


def test_a_projection_onto_principal_components_is_saved_with_it(clouds, tmp_path):
    points, is_fake = clouds
    thin = np.hstack([points, 1e-6 * points @ np.random.default_rng(0).normal(size=(3, 20))]).astype(np.float32)
    plain, projected = (
        fit_familiarity(each, is_fake, each, sha256="x", **settings)
        for each, settings in ((points, {}), (thin, {"components": 3}))
    )
    projected.save(tmp_path)
    again = Familiarity.load(tmp_path / FAMILIARITY)
    assert again.projection.shape == (3, 23)
    assert again.distances(thin) == pytest.approx(plain.distances(points), rel=1e-3)
    with pytest.raises(ValueError, match=r"embeddings \(n, 23\); found"):
        again.distances(points)
    with pytest.raises(ValueError, match="projection"):
        Familiarity(np.zeros((2, 3)), np.eye(3), 1, 0.01, 9, 9, "x", np.zeros((2, 5)))


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
