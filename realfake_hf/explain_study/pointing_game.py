"""Do maps find evidence whose place is known? A quadrant of one picture is planted in another.

Both pictures show the same kind of content, and the model calls both rightly. A real quadrant in a real picture is
the control: what a map makes of it is due to the seam, and not to where the quadrant comes from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.attribution.methods import CLASS_METHODS
from realfake_hf.data.sampling import take_evenly
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.agreement import GRID
from realfake_hf.explain_study.grid import maps_on_grid
from realfake_hf.explain_study.planting import QUADRANTS, draw_quadrants, inside, mass_inside, plant, pointing_game
from realfake_hf.explain_study.sample import Sample
from realfake_hf.explain_study.subjects import Subject
from realfake_hf.labels import LabelName
from realfake_hf.metrics.intervals import Resampling

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Kind:
    """What is planted in what, and the label whose evidence is asked for."""

    host: LabelName
    donor: LabelName
    target: LabelName


KINDS: Final[Mapping[str, Kind]] = {
    "fake in real": Kind(host="REAL", donor="FAKE", target="FAKE"),
    "real in fake": Kind(host="FAKE", donor="REAL", target="REAL"),
    "real in real": Kind(host="REAL", donor="REAL", target="FAKE"),
}


@dataclass(frozen=True)
class Finding:
    """How well a method's maps find the quadrant.

    Attributes:
        hits: share of maps whose highest cell lies in the quadrant, of cells that tie their share; chance is 1/4.
        mass: mean share of a map's sum in the quadrant. A map's lowest cell counts as 0.
        mass_before: the same share on the picture in which nothing is planted.
        mass_gain: what planting adds to it, picture by picture.
    """

    hits: Estimate
    mass: Estimate
    mass_before: Estimate
    mass_gain: Estimate


@dataclass(frozen=True)
class Planting:
    """One kind of planting for one model.

    Attributes:
        n: planted pictures.
        target: the label that is explained, planted or not.
        p_fake_moved: `p_fake` of the planted picture less that of its host.
        methods: by name.
    """

    n: int
    target: LabelName
    p_fake_moved: Estimate
    methods: Mapping[str, Finding]


@dataclass(frozen=True)
class PlantedStudy:
    """Planted evidence for each model.

    Attributes:
        chance: hits of a map that knows nothing.
        class_methods: those that explain the target; the others have one map for both labels.
        models: by the model's name, then by the name in `KINDS`.
    """

    chance: float
    class_methods: tuple[str, ...]
    models: Mapping[str, Mapping[str, Planting]]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and dictionaries."""
        return {
            "chance": self.chance,
            "grid": list(GRID),
            "class_methods": list(self.class_methods),
            "models": {
                model: {kind: to_plain(planting) for kind, planting in kinds.items()}
                for model, kinds in self.models.items()
            },
        }


def measure_planted(
    subjects: Sequence[Subject],
    sample: Sample,
    *,
    n: int,
    samples: int = 1000,
    seed: int = 0,
) -> PlantedStudy:
    """Plant quadrants in pictures, and ask each method where it sees the evidence.

    Args:
        subjects: the models, under the names that they have in the sample.
        sample: where hosts and donors come from. Its weights are not used: each planted picture counts once, as
            none of them exists in the set that the weights stand for.
        n: hosts of each kind of planting, at most, even in content.
        samples: bootstrap replicates.
        seed: of the pairs, the quadrants and the bootstrap.

    Raises:
        ValueError: there is no pair of pictures for a kind of planting.
    """
    pairs = {
        (subject.name, name): _draw_pairs(sample, kind, model=subject.name, n=n, seed=seed)
        for subject in subjects
        for name, kind in KINDS.items()
    }
    models: dict[str, dict[str, Planting]] = {}
    for subject in subjects:
        progress = tqdm(KINDS.items(), desc=f"{subject.name}: planted", unit="kind", disable=None)
        models[subject.name] = {
            name: _planting(subject, sample.pictures, pairs[subject.name, name], kind, samples=samples, seed=seed)
            for name, kind in progress
        }
    return PlantedStudy(chance=1 / QUADRANTS, class_methods=tuple(sorted(CLASS_METHODS)), models=models)


def _draw_pairs(sample: Sample, kind: Kind, *, model: str, n: int, seed: int) -> tuple[Rows, Rows]:
    """Draw hosts, even in content, and a donor of the same content for each; a donor serves again where few are."""
    order = np.random.default_rng(seed).permutation(len(sample))
    order = order[sample.is_right[model][order]]
    content = np.array(sample.content)
    pairs = [
        _paired(
            order[(content[order] == name) & (sample.is_fake[order] == (kind.host == "FAKE"))],
            order[(content[order] == name) & (sample.is_fake[order] == (kind.donor == "FAKE"))],
        )
        for name in sorted(set(sample.content))
    ]
    hosts, donors = np.concatenate(pairs, axis=1)
    if not len(hosts):
        raise ValueError(
            f"wanted pictures of the same content that {model} calls rightly, a {kind.host} one to plant a "
            f"{kind.donor} one in; found none. Draw a larger sample."
        )
    chosen = np.asarray(take_evenly(content[hosts].tolist(), n))
    return hosts[chosen], donors[chosen]


def _paired(hosts: Rows, donors: Rows) -> Rows:
    """Give each host the next donor, (2, pairs): where both are the same pictures, none is its own donor."""
    if not len(donors):
        return np.empty((2, 0), dtype=np.intp)
    pairs = np.stack([hosts, np.resize(np.roll(donors, 1), len(hosts))])
    return pairs[:, pairs[0] != pairs[1]]


def _planting(
    subject: Subject,
    pictures: NDArray[np.uint8],
    pairs: tuple[Rows, Rows],
    kind: Kind,
    *,
    samples: int,
    seed: int,
) -> Planting:
    hosts, donors = (pictures[rows] for rows in pairs)
    quadrants = draw_quadrants(len(hosts), seed=seed)
    planted = plant(hosts, donors, inside(quadrants, (hosts.shape[1], hosts.shape[2])))
    resampling = Resampling(np.ones(len(hosts)), samples=samples, seed=seed)
    return Planting(
        n=len(hosts),
        target=kind.target,
        p_fake_moved=resampling.mean(subject.probabilities(planted) - subject.probabilities(hosts)),
        methods={
            method: _finding(
                maps_on_grid(subject, planted, method, target=kind.target),
                before=maps_on_grid(subject, hosts, method, target=kind.target),
                where=inside(quadrants, GRID),
                resampling=resampling,
            )
            for method in subject.methods
        },
    )


def _finding(
    maps: NDArray[np.float64],
    *,
    before: NDArray[np.float64],
    where: NDArray[np.bool_],
    resampling: Resampling,
) -> Finding:
    mass, mass_before = mass_inside(maps, where), mass_inside(before, where)
    return Finding(
        hits=resampling.mean(pointing_game(maps, where)),
        mass=resampling.mean(mass),
        mass_before=resampling.mean(mass_before),
        mass_gain=resampling.mean(mass - mass_before),
    )
