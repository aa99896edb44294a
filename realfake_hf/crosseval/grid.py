"""The grid: load models and data sets, score images, measure every cell, compare the models."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Self

from accelerate import PartialState

from realfake_hf.crosseval.arguments import TRIVIAL, CrossevalArguments
from realfake_hf.crosseval.cell import Cell, measure_cell
from realfake_hf.crosseval.datasets import EvalDataset, load_dataset, sample_leak_free, stream_dataset
from realfake_hf.crosseval.errors import ERRORS, ShownError, TrainingEmbeddings, show_errors
from realfake_hf.crosseval.models import Model, check_models, fit_baseline, load_model
from realfake_hf.crosseval.near_duplicates import TrainingImages
from realfake_hf.crosseval.protocols import ProtocolGap, compare_protocols, correct
from realfake_hf.crosseval.robustness import Robustness, measure_robustness
from realfake_hf.crosseval.scoring import Scores, cell_name, cell_settings, load_or_score
from realfake_hf.crosseval.shortcuts import Shortcut, find_shortcuts
from realfake_hf.data.loading import find_source, unreadable_files
from realfake_hf.data.streaming import find_shards
from realfake_hf.distributed import join_processes, report_lost_processes
from realfake_hf.environment import environment
from realfake_hf.estimate import from_plain, to_plain
from realfake_hf.metrics.significance import McNemar, holm, mcnemar
from realfake_hf.store import Store, read_json, without_local_paths

CELL_VERSION: Final = 3  # increase whenever the content of a stored cell changes
PARTS: Final = ("cells", "pairs", "protocol_gaps", "shortcuts", "robustness", "errors")

Plain = dict[str, Any]  # JSON


@dataclass(frozen=True)
class Pair:
    """McNemar's test of two models, each at its own operating point, on the same images.

    `p_holm` is the p-value corrected for the number of tests in the grid (Holm, 1979).
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

    Cells are in the order of data sets, protocols, splits and models. The facts are arguments, models, data, code and
    machine.
    """

    facts: Plain
    cells: tuple[Cell, ...]
    pairs: tuple[Pair, ...]
    shortcuts: tuple[Shortcut, ...] = ()
    robustness: tuple[Robustness, ...] = ()
    errors: tuple[ShownError, ...] = ()
    protocol_gaps: tuple[ProtocolGap, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Restore the result of `to_dict`."""
        return from_plain(cls, {**data, "facts": {name: data[name] for name in data if name not in PARTS}})

    def to_dict(self) -> Plain:
        """Return the grid as plain JSON."""
        return self.facts | to_plain({name: getattr(self, name) for name in PARTS})

    @property
    def trained_models(self) -> list[str]:
        """Names of the models, without the trivial baseline."""
        return [name for name in self.facts["models"] if name != TRIVIAL]

    def whole_splits(self, model: str) -> list[Cell]:
        """Return the cells of a model on whole splits under the first protocol of the grid."""
        protocol = self.cells[0].protocol
        return [
            cell for cell in self.cells if cell.model == model and cell.protocol == protocol and cell.is_whole_split
        ]

    def home(self, model: str) -> list[Cell]:
        """Return the cell of a model on the data it was trained on: one or none."""
        return [cell for cell in self.whole_splits(model) if self._is_home(cell)]

    def away(self, model: str) -> list[Cell]:
        """Return the cells of a model on other data."""
        return [cell for cell in self.whole_splits(model) if not self._is_home(cell)]

    def _is_home(self, cell: Cell) -> bool:
        trained_on = self.facts["models"][cell.model]["trained_on"]
        return bool(trained_on == self.facts["data"][cell.dataset]["source"])


def read_grid(file: Path) -> Grid:
    """Read a grid from its JSON file; a `ValueError` is raised if it does not contain one."""
    try:
        return Grid.from_dict(without_local_paths(read_json(file)))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected a grid of crosseval.py in {file}; found something else ({error!r}).") from error


@report_lost_processes()
def run_grid(arguments: CrossevalArguments) -> Grid:
    """Compute a grid; finished cells are read from the output folder."""
    join_processes()
    check_models(arguments.places)
    store = _open_store(arguments.output_dir)
    load = _loader(arguments)
    datasets = [
        load(name, source, split=arguments.split, limit=arguments.limit) for name, source in arguments.sources.items()
    ]
    compared = arguments.duplicates_of
    training = TrainingImages(load("--duplicates_of", compared, split="train"), store) if compared else None
    neighbours = _load_neighbours(arguments, load)
    baseline = []
    if source := arguments.baseline_data:
        images = load("--baseline_data", source, split="train", limit=arguments.baseline_n)
        baseline = [fit_baseline(images, datasets)]
    models = [*(load_model(name, place, bf16=arguments.bf16) for name, place in arguments.places.items()), *baseline]
    if arguments.fresh:
        store.clear()
        PartialState().wait_for_everyone()
    shortcuts = find_shortcuts(datasets, store, seed=arguments.seed, training=training)
    datasets = [training.mark(dataset) for dataset in datasets] if training else datasets
    cells, pairs, gaps = _measure(arguments, store, models, datasets)
    leak_free = [
        sample_leak_free(dataset, arguments.robustness_n, seed=arguments.seed)
        for dataset in datasets
        if dataset.name in arguments.robustness
    ]
    draws = {"samples": arguments.bootstrap_samples, "seed": arguments.seed}
    robustness = tuple(row for sample in leak_free for row in measure_robustness(models, sample, store, **draws))
    errors = tuple(_show_errors(arguments, store, models, datasets, neighbours))
    return Grid(_facts(arguments, models, datasets), cells, pairs, shortcuts, robustness, errors, gaps)


def _open_store(folder: Path) -> Store:
    store = Store(folder / "cells", writes=PartialState().is_main_process)
    if folder.exists() and any(folder.iterdir()) and not store.folder.exists():
        raise ValueError(
            f"expected an empty output folder, or the folder of a grid; found other files in {folder}. Choose another "
            "--output_dir."
        )
    return store


def _loader(arguments: CrossevalArguments) -> Callable[..., EvalDataset]:
    """Return the function that loads data sets, after checking that all sources exist."""
    find: Callable[[str], object] = partial(find_source, labels=arguments.labels)
    find = partial(find_shards, columns=[]) if arguments.streaming else find
    training = arguments.training_data if arguments.errors else None
    optional = (arguments.baseline_data, arguments.duplicates_of, training)
    for source in (*arguments.sources.values(), *filter(None, optional)):
        find(source)
    if arguments.streaming:
        return partial(stream_dataset, seed=arguments.seed)
    return partial(load_dataset, labels=arguments.labels, seed=arguments.seed)


def _measure(
    arguments: CrossevalArguments, store: Store, models: Sequence[Model], datasets: Sequence[EvalDataset]
) -> tuple[tuple[Cell, ...], tuple[Pair, ...], tuple[ProtocolGap, ...]]:
    """Measure and compare all models and both protocols on each whole split, then on its parts."""
    cells: list[Cell] = []
    pairs: list[Pair] = []
    gaps: list[ProtocolGap] = []
    for dataset in datasets:
        scores: dict[str, Scores] = {}
        for protocol in arguments.protocols:
            scores[protocol] = load_or_score(models, dataset, store, protocol=protocol)
            for split in dataset.parts:
                group = [
                    _load_or_measure(arguments, store, model, dataset, protocol, split=split, scores=scores[protocol])
                    for model in models
                ]
                cells += group
                pairs += _compare(dataset, group, scores[protocol], split)
        gaps += compare_protocols(models, dataset, scores, store, seed=arguments.seed)
    adjusted = holm([pair.test.p_value for pair in pairs])
    corrected = tuple(replace(pair, p_holm=p) for pair, p in zip(pairs, adjusted, strict=True))
    return tuple(cells), corrected, correct(gaps)


def _load_or_measure(
    arguments: CrossevalArguments,
    store: Store,
    model: Model,
    dataset: EvalDataset,
    protocol: str,
    *,
    split: str,
    scores: Scores,
) -> Cell:
    p_fake, samples, seed = scores[model.name], arguments.bootstrap_samples, arguments.seed
    settings = {
        **cell_settings(dataset, model, dataset.parts[split]), "protocol": protocol, "point": to_plain(model.point),
        "bootstrap_samples": samples, "seed": seed, "version": CELL_VERSION,
    }  # fmt: skip

    def measure() -> Plain:
        cell = measure_cell(model, dataset, p_fake, protocol=protocol, samples=samples, seed=seed, split=split)
        return to_plain(cell)

    return from_plain(Cell, store.json(cell_name(dataset, protocol, model, split=split), settings, measure))


def _compare(dataset: EvalDataset, cells: Sequence[Cell], scores: Scores, split: str) -> Iterator[Pair]:
    is_right = {
        cell.model: ((scores[cell.model] > cell.point.threshold) == dataset.is_fake)[dataset.parts[split]]
        for cell in cells
        if cell.model != TRIVIAL
    }
    for a, b in combinations(is_right, 2):
        test = mcnemar(is_right[a], is_right[b])
        yield Pair(a, b, *cells[0].place, test, test.p_value)


def _load_neighbours(arguments: CrossevalArguments, load: Callable[..., EvalDataset]) -> EvalDataset | None:
    """Load the training images that are compared with errors, of which each label has some; None without any."""
    source = arguments.training_data
    if not source or not arguments.errors:
        return None
    training = load("--training_data", source, split="train", limit=arguments.neighbours_n)
    if training.is_fake.all() or not training.is_fake.any():
        raise ValueError(
            f"expected real and fake images in --training_data; found {(~training.is_fake).sum():,} and "
            f"{training.is_fake.sum():,} in {source}. Choose a source with both."
        )
    return training


def _show_errors(
    arguments: CrossevalArguments,
    store: Store,
    models: Sequence[Model],
    datasets: Sequence[EvalDataset],
    training: EvalDataset | None,
) -> Iterator[ShownError]:
    """Show errors under the first protocol, from stored scores, on the main process only."""
    if not arguments.errors or not PartialState().is_main_process:
        return
    folder, protocol = arguments.output_dir, arguments.protocols[0]
    shutil.rmtree(folder / ERRORS, ignore_errors=True)
    for model in models:
        if model.detector is None:
            continue
        embeddings = TrainingEmbeddings(model, training, store) if training else None
        for dataset in datasets:
            p_fake = load_or_score([model], dataset, store, protocol=protocol)[model.name]
            yield from show_errors(
                model, dataset, p_fake, folder, n=arguments.errors, protocol=protocol, training=embeddings
            )


def _facts(arguments: CrossevalArguments, models: Sequence[Model], datasets: Sequence[EvalDataset]) -> Plain:
    settings = to_plain(arguments)
    model_facts = {
        model.name: {
            "place": model.place,
            "point": to_plain(model.point),
            "weights": model.digest,
            "trained_on": model.trained_on,
        }
        for model in models
    }
    data_facts = {
        dataset.name: {
            "source": dataset.source,
            "split": dataset.split,
            "n": len(dataset.rows),
            "sha256": dataset.sha256,
            "unreadable": []
            if dataset.is_streamed
            else to_plain(unreadable_files(dataset.source, labels=dataset.labels)),
        }
        for dataset in datasets
    }
    facts = {"settings": settings, **environment(), "models": model_facts, "data": data_facts}
    return dict(without_local_paths(facts))
