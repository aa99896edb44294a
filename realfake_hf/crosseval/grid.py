"""The whole grid: check, load, score what is not yet scored, measure every cell, compare the models."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from accelerate import PartialState
from numpy.typing import NDArray

from realfake_hf.crosseval.arguments import TRIVIAL, CrossevalArguments
from realfake_hf.crosseval.cell import LEAK_FREE, Cell, measure_cell
from realfake_hf.crosseval.datasets import TestSet, draw_from, load_test_set, stream_test_set
from realfake_hf.crosseval.duplicates import with_duplicates
from realfake_hf.crosseval.errors import ERRORS, ShownError, show_errors
from realfake_hf.crosseval.models import Entrant, check_models, fit_trivial, load_model
from realfake_hf.crosseval.neighbours import Neighbours
from realfake_hf.crosseval.robustness import Robustness, measure_robustness
from realfake_hf.crosseval.scoring import score_all
from realfake_hf.crosseval.shortcuts import Shortcut, find_shortcut
from realfake_hf.crosseval.store import CellStore
from realfake_hf.data.loading import find_source, unreadable_files
from realfake_hf.data.sampling import Flags
from realfake_hf.data.streaming import find_shards
from realfake_hf.distributed import join_processes, report_lost_processes
from realfake_hf.environment import environment
from realfake_hf.estimate import to_plain
from realfake_hf.metrics.significance import McNemar, holm, mcnemar

CELL_VERSION: Final = 2  # raise it when a cell holds other things than before
PARTS: Final = ("cells", "pairs", "shortcuts", "robustness", "errors")

logger = logging.getLogger(__name__)

Plain = dict[str, Any]  # JSON
Scores = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Pair:
    """Two models on the same pictures, each at its own operating point.

    Attributes:
        a: one model.
        b: the other.
        dataset: the data set.
        split: its split.
        protocol: what was done to the pictures.
        test: McNemar's.
        p_holm: its p-value, corrected for the number of tests in the grid (Holm, 1979).
    """

    a: str
    b: str
    dataset: str
    split: str
    protocol: str
    test: McNemar
    p_holm: float


@dataclass(frozen=True)
class Grid:
    """Every model on every data set under every protocol.

    Attributes:
        facts: what was asked, of which models, on which pictures, with which code and machine.
        cells: in the order of data sets, splits, protocols and models.
        pairs: McNemar's test of each two models in each of these places.
        shortcuts: what the files of each data set alone say of the label.
        robustness: what each model withstands, on the data sets that were named for it.
        errors: the surest errors, where they were asked for.
    """

    facts: Plain
    cells: tuple[Cell, ...]
    pairs: tuple[Pair, ...]
    shortcuts: tuple[Shortcut, ...] = ()
    robustness: tuple[Robustness, ...] = ()
    errors: tuple[ShownError, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        return cls(
            facts={name: value for name, value in data.items() if name not in PARTS},
            cells=tuple(Cell.from_dict(one) for one in data["cells"]),
            pairs=tuple(Pair(**{**one, "test": McNemar(**one["test"])}) for one in data["pairs"]),
            shortcuts=tuple(Shortcut.from_dict(one) for one in data["shortcuts"]),
            robustness=tuple(Robustness.from_dict(one) for one in data["robustness"]),
            errors=tuple(ShownError.from_dict(one) for one in data.get("errors", ())),
        )

    def to_dict(self) -> Plain:
        """The grid as plain numbers, strings and dictionaries."""
        parts = {name: [to_plain(one) for one in getattr(self, name)] for name in PARTS}
        return {**self.facts, **parts}


@report_lost_processes()
def run_grid(arguments: CrossevalArguments) -> Grid:
    """Do what is not yet done of a grid, and give all of it.

    Raises:
        OSError: there is no such model or data set.
        ValueError: a model does not say real and fake; a data set has no such split; the folder is in use.
    """
    join_processes()
    check_models(arguments.places)
    store = CellStore(arguments.output_dir, writes=PartialState().is_main_process)
    load = _loader(arguments)
    sets = [
        load(name, source, split=arguments.split, limit=arguments.limit) for name, source in arguments.sources.items()
    ]
    training = arguments.duplicates_of and load("--duplicates_of", arguments.duplicates_of, split="train")
    baseline = _baseline(arguments, sets)
    entrants = [*(load_model(name, place, bf16=arguments.bf16) for name, place in arguments.places.items()), *baseline]
    if arguments.fresh:
        store.forget()
        PartialState().wait_for_everyone()
    shortcuts = tuple(_shortcut(one, store, arguments.seed) for one in sets)
    shortcuts = with_duplicates(shortcuts, sets, training, store) if training else shortcuts
    work = _Work(arguments, store, entrants)
    places = [found for one in sets for protocol in arguments.protocols for found in work.place(one, protocol)]
    cells = tuple(cell for found, _ in places for cell in found)
    pairs = _corrected([pair for _, found in places for pair in found])
    drawn = [
        draw_from(one, arguments.robustness_n, seed=arguments.seed) for one in sets if one.name in arguments.robustness
    ]
    settings = {"samples": arguments.bootstrap_samples, "seed": arguments.seed}
    robustness = tuple(found for one in drawn for found in measure_robustness(entrants, one, store, **settings))
    errors = tuple(_errors(work, sets)) if arguments.errors and PartialState().is_main_process else ()
    return Grid(_facts(arguments, entrants, sets), cells, pairs, shortcuts, robustness, errors)


def _loader(arguments: CrossevalArguments) -> Callable[..., TestSet]:
    """Make sure that all sources are there, and give what loads them."""
    find = partial(find_shards, columns=[]) if arguments.streaming else find_source
    for source in (*arguments.sources.values(), arguments.baseline_data, arguments.duplicates_of):
        _ = source and find(source)
    return partial(stream_test_set if arguments.streaming else load_test_set, seed=arguments.seed)


@dataclass(frozen=True, eq=False)
class _Work:
    arguments: CrossevalArguments
    store: CellStore
    entrants: Sequence[Entrant]

    def place(self, one: TestSet, protocol: str) -> Iterator[tuple[list[Cell], list[Pair]]]:
        """Measure all models on a data set under a protocol: the whole split, then its leak-free part if smaller."""
        scores = self.scores(one, protocol)
        yield self._measure(one, protocol, scores, where=None)
        if not one.is_leak_free.all() and one.is_leak_free.any():
            yield self._measure(one, protocol, scores, where=one.is_leak_free)

    def scores(self, one: TestSet, protocol: str) -> Scores:
        kept = {
            entrant.name: self.store.scores(_file(one, protocol, entrant), _asked(one, protocol, entrant))
            for entrant in self.entrants
        }
        missing = [entrant for entrant in self.entrants if kept[entrant.name] is None]
        made = score_all(missing, one, protocol) if missing else {}
        for entrant in missing:
            asked = _asked(one, protocol, entrant)
            self.store.keep_scores(_file(one, protocol, entrant), asked, made[entrant.name])
        return {**made, **{name: scores for name, scores in kept.items() if scores is not None}}

    def _measure(
        self, one: TestSet, protocol: str, scores: Scores, *, where: Flags | None
    ) -> tuple[list[Cell], list[Pair]]:
        samples, seed = self.arguments.bootstrap_samples, self.arguments.seed
        settings = {"protocol": protocol, "samples": samples, "seed": seed, "where": where}
        cells = []
        for entrant in self.entrants:
            make = partial(_plain_cell, entrant, one, scores[entrant.name], settings)
            asked = {
                **_asked(one, protocol, entrant),
                "point": entrant.point.to_dict(),
                "bootstrap_samples": samples,
                "seed": seed,
                "version": CELL_VERSION,
            }
            name = _file(one, protocol, entrant) + ("" if where is None else f"-{LEAK_FREE}")
            cells.append(Cell.from_dict(self.store.cell(name, asked, make)))
        return cells, list(self._pairs(one, cells, scores, where))

    def _pairs(self, one: TestSet, cells: Sequence[Cell], scores: Scores, where: Flags | None) -> Iterator[Pair]:
        chosen = slice(None) if where is None else where
        right = {
            cell.model: ((scores[cell.model] > cell.point.threshold) == one.is_fake)[chosen]
            for cell in cells
            if cell.model != TRIVIAL
        }
        for a, b in combinations(right, 2):
            test = mcnemar(right[a], right[b])
            yield Pair(a, b, *cells[0].place, test, test.p_value)


def _errors(work: _Work, sets: Sequence[TestSet]) -> Iterator[ShownError]:
    """Show errors under the first protocol, from scores that are kept; the main process alone, after all else."""
    arguments, folder = work.arguments, work.store.folder.parent
    shutil.rmtree(folder / ERRORS, ignore_errors=True)
    load = partial(_loader(arguments), split="train", limit=arguments.neighbours_n)
    training = arguments.training_data and load("--training_data", arguments.training_data)
    protocol = arguments.protocols[0]
    for entrant in [one for one in work.entrants if one.detector]:
        assert entrant.detector is not None
        near = (
            Neighbours(entrant.name, entrant.detector, training, work.store, digest=entrant.digest)
            if training
            else None
        )
        for one in sets:
            p_fake = work.scores(one, protocol)[entrant.name]
            yield from show_errors(
                entrant, one, p_fake, folder, n=arguments.errors, protocol=protocol, neighbours=near
            )


def _baseline(arguments: CrossevalArguments, sets: Sequence[TestSet]) -> list[Entrant]:
    if not arguments.baseline_data:
        return []
    load = partial(_loader(arguments), split="train", limit=arguments.baseline_n)
    return [fit_trivial(load("--baseline_data", arguments.baseline_data), sets)]


def _corrected(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    adjusted = holm([pair.test.p_value for pair in pairs])
    return tuple(replace(pair, p_holm=p) for pair, p in zip(pairs, adjusted, strict=True))


def _shortcut(one: TestSet, store: CellStore, seed: int) -> Shortcut:
    def make() -> Plain:
        return to_plain(find_shortcut(one, seed=seed))

    asked = {"source": one.source, "seed": seed, **({"pictures": one.sha256} if one.is_streamed else {})}
    found = Shortcut.from_dict(store.cell(f"{one.name}-files", asked, make))
    if found.warning:
        logger.warning(found.words)
    return found


def _plain_cell(entrant: Entrant, one: TestSet, p_fake: NDArray[np.floating], settings: Mapping[str, Any]) -> Plain:
    return measure_cell(entrant, one, p_fake, **settings).to_dict()


def _file(one: TestSet, protocol: str, entrant: Entrant) -> str:
    return f"{one.name}-{one.split}-{protocol}-{entrant.name}"


def _asked(one: TestSet, protocol: str, entrant: Entrant) -> Plain:
    return {"weights": entrant.digest, "pictures": one.sha256, "protocol": protocol}


def _facts(arguments: CrossevalArguments, entrants: Sequence[Entrant], sets: Sequence[TestSet]) -> Plain:
    settings = {name: str(one) if isinstance(one, Path) else one for name, one in to_plain(arguments).items()}
    models = {
        one.name: {
            "place": one.place,
            "point": one.point.to_dict(),
            "weights": one.digest,
            "trained_on": one.trained_on,
        }
        for one in entrants
    }
    return {"settings": settings, **environment(), "models": models, "data": {one.name: _data(one) for one in sets}}


def _data(one: TestSet) -> Plain:
    left_out = [] if one.is_streamed else [to_plain(file) for file in unreadable_files(one.source)]
    facts = {"source": one.source, "split": one.split, "n": len(one.rows), "sha256": one.sha256}
    return {**facts, "unreadable": left_out}
