"""Do maps of two models, or of two methods, point at the same evidence, beyond what chance and controls give?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.map_agreement import MEASURES, agreement, centre_gaussian, chance_iou, shuffled
from realfake_hf.explain_study.maps import MapSet
from realfake_hf.explain_study.sample import Sample
from realfake_hf.metrics.intervals import Resampling

GRID: Final = (8, 8)  # of the ViT's patches at 32 px with patches of 4; finer maps are averaged
SPLIT_MEASURES: Final = ("iou_top_20", "spearman")  # of those told apart by label and content

Values = Mapping[str, NDArray[np.float64]]  # (n,) a measure
Means = dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class PairAgreement:
    """How two kinds of map agree on the same pictures.

    Attributes:
        a: model and method.
        b: model and method.
        same_picture: by measure.
        shuffled: a's map against b's map of another picture.
        random_weights: both maps of the same picture, from models of the same configurations that never learned.
        above_shuffled: same picture less shuffled, picture by picture.
        all_right: over the pictures on which the models are right.
        some_wrong: over those on which one is wrong.
        right_less_wrong: the difference of the two.
        by_label: over REAL and over FAKE pictures; for maps of two models.
        by_content: over the pictures of each content; for maps of two models.
    """

    a: str
    b: str
    same_picture: Means
    shuffled: Means
    random_weights: Means
    above_shuffled: Means
    all_right: Means
    some_wrong: Means
    right_less_wrong: Means
    by_label: dict[str, Means]
    by_content: dict[str, Means]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers, the controls beside each measure."""
        beside = ("same_picture", "shuffled", "random_weights", "above_shuffled")
        measures = {name: {kind: to_plain(getattr(self, kind)[name]) for kind in beside} for name in self.same_picture}
        rest = ("all_right", "some_wrong", "right_less_wrong")
        splits = {
            kind: {name: _plain(means) for name, means in getattr(self, kind).items()}
            for kind in ("by_label", "by_content")
        }
        return {
            "a": self.a,
            "b": self.b,
            "measures": measures,
            **{kind: _plain(getattr(self, kind)) for kind in rest},
            **splits,
        }


@dataclass(frozen=True, kw_only=True)
class AgreementStudy:
    """The agreement of every pair of maps, and what it is to be read against.

    Attributes:
        maps: how each kind of map was made.
        chance: what maps that know nothing of each other have, by measure, where that can be worked out.
        pairs: every two kinds of map.
        centre: each kind of map against a bell in the middle of the picture.
        ceiling: each kind of map against that of a model of another training seed, for models that have one.
    """

    maps: dict[str, dict[str, Any]]
    chance: dict[str, float]
    pairs: tuple[PairAgreement, ...]
    centre: dict[str, Means]
    ceiling: dict[str, Means]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and dictionaries."""
        return {
            "maps": self.maps,
            "chance": self.chance,
            "pairs": [pair.to_dict() for pair in self.pairs],
            "centre": {name: _plain(means) for name, means in self.centre.items()},
            "ceiling": {name: _plain(means) for name, means in self.ceiling.items()},
        }


def measure_agreement(
    trained: Sequence[MapSet],
    random: Sequence[MapSet],
    twins: Sequence[MapSet],
    sample: Sample,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> AgreementStudy:
    """Compare every two kinds of map, on the common grid.

    A picture of which one map is empty has no agreement, and is counted as undefined. Means are those of the whole
    split: see `Sample.weight`.

    Args:
        trained: the maps of the models under study, a method each.
        random: the same kinds of map from models with random weights.
        twins: the same kinds of map from models of another training seed; may lack some.
        sample: the pictures.
        samples: bootstrap replicates behind each interval.
        seed: of the bootstrap and of the shuffled pairs.
    """
    resampling = sample.resampling(samples=samples, seed=seed)
    maps, blank, other = ({one.name: one.on_grid(GRID) for one in sets} for sets in (trained, random, twins))
    model_of = {one.name: one.model for one in trained}
    partner = shuffled(len(sample), seed=seed)
    bell = np.broadcast_to(centre_gaussian(GRID), (len(sample), *GRID))
    pairs = []
    for a, b in combinations(maps, 2):
        same, apart = agreement(maps[a], maps[b]), agreement(maps[a], maps[b][partner])
        unlearned = agreement(blank[a], blank[b])
        right = sample.is_right[model_of[a]] & sample.is_right[model_of[b]]
        split = model_of[a] != model_of[b]
        pairs.append(_pair((a, b), same, apart, unlearned, right=right, split=split, sample=sample, of=resampling))
    return AgreementStudy(
        maps={one.name: one.to_dict() for one in trained},
        chance=_chance(),
        pairs=tuple(pairs),
        centre={name: _means(agreement(one, bell), resampling) for name, one in maps.items()},
        ceiling={name: _means(agreement(maps[name], one), resampling) for name, one in other.items()},
    )


def _pair(
    names: tuple[str, str],
    same: Values,
    apart: Values,
    unlearned: Values,
    *,
    right: NDArray[np.bool_],
    split: bool,
    sample: Sample,
    of: Resampling,
) -> PairAgreement:
    chosen = {name: same[name] for name in SPLIT_MEASURES}
    labels = {"REAL": ~sample.is_fake, "FAKE": sample.is_fake} if split else {}
    contents = {name: np.array(sample.content) == name for name in sorted(set(sample.content))} if split else {}
    return PairAgreement(
        a=names[0],
        b=names[1],
        same_picture=_means(same, of),
        shuffled=_means(apart, of),
        random_weights=_means(unlearned, of),
        above_shuffled=_means({name: same[name] - apart[name] for name in same}, of),
        all_right=_means(same, of, where=right),
        some_wrong=_means(same, of, where=~right),
        right_less_wrong={name: of.difference(values, of=right, less=~right) for name, values in same.items()},
        by_label={name: _means(chosen, of, where=where) for name, where in labels.items()},
        by_content={name: _means(chosen, of, where=where) for name, where in contents.items()},
    )


def _chance() -> dict[str, float]:
    """What independent maps without ties have: the mean overlap, and no correlation."""
    cells = GRID[0] * GRID[1]
    overlaps = {f"iou_top_{percent}": chance_iou(cells, share=percent / 100) for percent in (10, 20)}
    return {**overlaps, "spearman": 0.0, "pearson": 0.0}


def _means(values: Values, of: Resampling, *, where: NDArray[np.bool_] | None = None) -> Means:
    return {name: of.mean(values[name], where=where) for name in MEASURES if name in values}


def _plain(means: Means) -> dict[str, Any]:
    return {name: to_plain(mean) for name, mean in means.items()}
