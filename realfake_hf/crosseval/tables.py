"""The grid in Markdown: a table of the cells, and what sets groups of pictures and pairs of models apart."""

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.crosseval.cell import LEAK_FREE, Cell, GroupGap
from realfake_hf.crosseval.false_alarms import Harm
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.robustness import robustness_table
from realfake_hf.metrics.operating_point import DEFAULT
from realfake_hf.metrics.significance import holm

SHOWN: Final = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "accuracy_real": "on REAL",
    "accuracy_fake": "on FAKE",
    "roc_auc": "ROC AUC",
    "average_precision": "AP",
    "tpr_at_5_fpr": "TPR at 5 % FPR",
    "ece": "ECE",
    "brier": "Brier",
    "nll": "NLL",
}
MOST_HARM: Final = 15  # contents listed by harm
LEAST_REAL: Final = 5  # REAL pictures of a content below which it is not listed
NAMED: Final = 5  # unreadable files of a data set
NOTABLE: Final = 0.05  # corrected p-value up to which a group is listed


def to_markdown(grid: Grid) -> str:
    """Render the grid: cells, notes, groups, pairs."""
    parts = [
        _shortcut_list(grid), _cell_table(grid), _notes(grid), _confidence_table(grid), _shared_table(grid),
        _group_table(grid), _pair_list(grid), _harm_table(grid),
        *_robustness_tables(grid),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def _shortcut_list(grid: Grid) -> str:
    loud = [f"**{one.words}**" for one in grid.shortcuts if one.warning]
    quiet = [one.words for one in grid.shortcuts if not one.warning]
    return "\n\n".join([*loud, *quiet, *(str(one.duplicates) for one in grid.shortcuts if one.duplicates)])


def _cell_table(grid: Grid) -> str:
    names = ["data", "protocol", "model", "REAL / FAKE", "majority", *SHOWN.values()]
    head = [f"| {' | '.join(names)} |", f"|---|---|---|{'--:|' * (len(names) - 3)}"]
    return "\n".join([*head, *(f"| {' | '.join(_row(cell))} |" for cell in grid.cells)])


def _row(cell: Cell) -> list[str]:
    report = cell.report
    sizes = f"{report.n_real:,} / {report.n_fake:,}"
    shown = [str(getattr(report, name)) for name in SHOWN]
    return [f"{cell.dataset} {cell.split}", cell.protocol, cell.model, sizes, f"{cell.majority:.3f}", *shown]


def _notes(grid: Grid) -> str:
    return "\n\n".join([_thresholds(grid), *_one_label(grid), *_unreadable(grid), _oracle(grid)])


def _thresholds(grid: Grid) -> str:
    points = {cell.model: cell.point for cell in grid.cells}
    lines = [f"- {model} calls FAKE above {point}." for model, point in points.items()]
    warned = [model for model, point in points.items() if point == DEFAULT]
    if warned:
        lines.append(f"- No threshold is frozen on validation for {', '.join(warned)}.")
    samples = grid.facts["settings"]["bootstrap_samples"]
    return "\n".join([f"In brackets: 95 % intervals of {samples:,} bootstrap samples.", "", *lines])


def _one_label(grid: Grid) -> Iterator[str]:
    cells = [cell for cell in grid.cells if not (cell.report.n_real and cell.report.n_fake)]
    for name in dict.fromkeys(f"{cell.dataset} {cell.split}" for cell in cells):
        yield f"{name} has pictures of one label only: what needs both, such as ROC AUC, is undefined."


def _unreadable(grid: Grid) -> Iterator[str]:
    for name, facts in grid.facts["data"].items():
        if files := facts["unreadable"]:
            named = ", ".join(file["key"] for file in files[:NAMED])
            rest = f" and {len(files) - NAMED:,} more" if len(files) > NAMED else ""
            yield f"Pictures of {name} that cannot be read and are left out: {len(files):,} ({named}{rest})."


def _oracle(grid: Grid) -> str:
    found = [
        f"{cell.dataset} {cell.split} {cell.protocol} {cell.model} {cell.oracle_accuracy:.3f}"
        for cell in grid.cells
        if cell.oracle_accuracy is not None
    ]
    note = "Oracle, and no result: the accuracy at the threshold that is best on the measured pictures themselves, "
    return f"{note}which nobody knows beforehand: {'; '.join(found)}." if found else ""


def _confidence_table(grid: Grid) -> str:
    cells = [cell for cell in grid.cells if cell.confidence.after or cell.confidence.band]
    if not cells:
        return ""
    title = (
        "Confidence: ECE and log loss before and after the temperature fitted on validation; pictures outside "
        "the band in which the model is unsure, wrong verdicts among them, and whether they are as few as promised "
        "(missed: more, but the interval holds the promise; broken: surely more)."
    )
    names = ["cell", "ECE", "ECE scaled", "log loss", "log loss scaled", "decided", "wrong among them", "promise"]
    head = [f"| {' | '.join(names)} |", f"|---|{'--:|' * 6}---|"]
    return "\n".join([title, "", *head, *(f"| {' | '.join(_confidence_row(cell))} |" for cell in cells)])


def _confidence_row(cell: Cell) -> list[str]:
    found = cell.confidence
    after = found.after or {}
    losses = [str(one) for name in ("ece", "nll") for one in (found.before[name], after.get(name, "none"))]
    if found.band is None:
        return [_where(cell), *losses, "no band", "", ""]
    promise = f"{found.promise}: {100 * found.band.promised:g} %" if found.promise else "undefined"
    return [_where(cell), *losses, f"{found.decided.value:.3f} of {found.decided.n:,}", str(found.wrong), promise]


def _shared_table(grid: Grid) -> str:
    found = [(_where(cell), cell.shared) for cell in grid.cells if cell.shared is not None]
    if not found:
        return ""
    adjusted = holm([gap.p_value for _, gap in found])
    rows = [
        f"| {where} | {gap.n:,} | {gap.n_rest:,} | {gap.rate:.3f} | {gap.rate_rest:.3f} | {gap} | {_p(p)} |"
        for (where, gap), p in zip(found, adjusted, strict=True)
    ]
    title = "Contents that CIFAKE has against contents that it lacks: share of right verdicts, mean over the labels "
    test = "Fisher's exact test over the labels, p corrected for these cells (Holm)"
    head = ["| cell | n shared | n unseen | shared | unseen | gap | p |", "|---|--:|--:|--:|--:|--:|---|"]
    return "\n".join([f"{title}that occur on both sides, and {test}.", "", *head, *rows])


def _group_table(grid: Grid) -> str:
    rows = [
        f"| {_where(cell)} | {kind} {name} | {group.gap.n:,} | {group.gap} | {_p(group.p_holm)} | {group.roc_auc} |"
        for cell in grid.cells
        for kind, groups in (("content", cell.contents), ("generator", cell.generators))
        for name, group in _notable(groups)
    ]
    tested = sum(len(cell.contents) + len(cell.generators) for cell in grid.cells)
    if not tested:
        return ""
    title = (
        f"Of {tested:,} contents and generators, each against the rest of its cell, those whose gap has p of at most "
        f"{NOTABLE} after Holm's correction within the cell: "
    )
    if not rows:
        return f"{title}none."
    head = ["| cell | group | n | gap | corrected p | ROC AUC |", "|---|---|--:|--:|---|--:|"]
    return "\n".join([title.replace(": ", ":"), "", *head, *rows])


def _notable(groups: dict[str, GroupGap]) -> list[tuple[str, GroupGap]]:
    return [(name, group) for name, group in groups.items() if group.p_holm <= NOTABLE]


def _pair_list(grid: Grid) -> str:
    if not grid.pairs:
        return ""
    tests = f"the grid's {len(grid.pairs):,} tests"
    lines = [f"McNemar's exact test of each two models at their own thresholds, p corrected for {tests} (Holm):", ""]
    for place, pairs in groupby(grid.pairs, lambda pair: f"{pair.dataset} {pair.split}, {pair.protocol}"):
        lines += [
            f"- {place}: {pair.test.to_words(a=pair.a, b=pair.b)}; corrected {_p(pair.p_holm)}." for pair in pairs
        ]
    return "\n".join(lines)


def _harm_table(grid: Grid) -> str:
    rows = harm_rows(grid)
    if not rows:
        return ""
    shown = [f"| {_where(cell)} | {one.content} | {one.called_fake.n:,} | {one.called_fake} |" for cell, one in rows]
    title = (
        "REAL pictures called FAKE by content: people first where the content says so, then the highest lower end of "
        f"the exact 95 % interval; the first {MOST_HARM} of at least {LEAST_REAL} pictures each."
    )
    head = ["| cell | content | n REAL | called FAKE |", "|---|---|--:|--:|"]
    return "\n".join([title, "", *head, *shown])


def harm_rows(grid: Grid) -> list[tuple[Cell, Harm]]:
    """Give the contents whose REAL pictures are called FAKE most, over all native cells of whole splits."""
    found = [
        (cell, one)
        for cell in grid.cells
        if cell.model != TRIVIAL and cell.protocol == grid.cells[0].protocol and not cell.split.endswith(LEAK_FREE)
        for one in cell.harm
        if (one.called_fake.n or 0) >= LEAST_REAL
    ]
    found.sort(key=lambda row: (not row[1].shows_people, -(row[1].called_fake.low or 0)))
    return found[:MOST_HARM]


def _robustness_tables(grid: Grid) -> Iterator[str]:
    for _, found in groupby(grid.robustness, lambda one: one.dataset):
        yield robustness_table(list(found))


def _p(p_value: float) -> str:
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"  # noqa: PLR2004


def _where(cell: Cell) -> str:
    return f"{cell.dataset} {cell.split}, {cell.protocol}, {cell.model}"
