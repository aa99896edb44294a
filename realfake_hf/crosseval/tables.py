"""Tables of a grid, warnings about its numbers, and at most five findings."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import wrap
from typing import Final

from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.crosseval.cell import PREVALENCE, UNKNOWN, Cell
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.protocols import STATISTICS as COMPARED
from realfake_hf.crosseval.robustness import robustness_table
from realfake_hf.environment import main_versions
from realfake_hf.metrics.operating_point import DEFAULT
from realfake_hf.metrics.significance import holm
from realfake_hf.tables import Table, plain_text, shorten

SMALL: Final = 100  # images of a label below which a cell is flagged as small
NOTABLE: Final = 0.05  # corrected p-value up to which a group is listed
MAX_FILES: Final = 5  # unreadable files of a data set that a warning names
MAX_CONTENTS: Final = 15  # contents with the most false alarms that are listed
MIN_REAL: Final = 5  # REAL images below which a content is not listed
STATISTICS: Final = {
    "accuracy": "accuracy", "roc_auc": "ROC AUC", "average_precision": "average precision",
    "tpr_at_5_fpr": "TPR at 5% FPR", "ece": "ECE", "brier": "Brier score", "nll": "log loss",
}  # fmt: skip
PLACE: Final = ("data", "protocol", "model")
COLUMNS: Final = 100  # of a terminal
FLAGS: Final = (
    f"small: fewer than {SMALL} images of a label; chance: the interval of the ROC AUC does not lie above 0.5; missed "
    "or broken: the error rate of sure verdicts is above the promised one, broken with its whole interval."
)
_NAME: Final = 22  # characters of a model's name in a terminal


def to_markdown(grid: Grid, *, folded: bool = True) -> str:
    """Render warnings, findings and tables; `folded` includes the tables that the HTML page folds."""
    notes = [f"**Warning.** {warning}" for warning in warnings(grid)]
    notes.append("\n".join(f"- {finding}" for finding in findings(grid)))
    tables = [table for group in tables_by_section(grid).values() for table in group if folded or not table.folded]
    return "\n\n".join([*notes, *(table.to_markdown() for table in tables)])


def warnings(grid: Grid) -> list[str]:
    """Return what a reader must know before reading any number."""
    points = {cell.model: cell.point for cell in grid.cells}
    one_label = dict.fromkeys(
        f"{cell.dataset} {cell.split}" for cell in grid.cells if not (cell.report.n_real and cell.report.n_fake)
    )
    unreadable = {name: [file["key"] for file in facts["unreadable"]] for name, facts in grid.facts["data"].items()}
    return [
        *(shortcut.text for shortcut in grid.shortcuts if shortcut.warning),
        *(f"{name} has no threshold chosen on validation; 0.5 is used." for name in points if points[name] == DEFAULT),
        *(f"{name} has images of one label only; ROC AUC and others are undefined." for name in one_label),
        *(
            f"{len(files):,} unreadable images of {name} are excluded "
            f"({', '.join([*files[:MAX_FILES], *(['...'] if files[MAX_FILES:] else [])])})."
            for name, files in unreadable.items()
            if files
        ),
    ]


def findings(grid: Grid) -> list[str]:
    """Return at most five findings of one sentence each."""
    away = [cell for model in grid.trained_models for cell in grid.away(model)]
    trained = [cell for model in grid.trained_models for cell in grid.whole_splits(model)]
    return [*_transfer(grid, away), *_promises(trained), *_alarms(trained)]


def _transfer(grid: Grid, away: Sequence[Cell]) -> Iterator[str]:
    values = [cell.report.roc_auc.value for cell in away if cell.report.roc_auc.value is not None]
    if values:
        above = sum(cell.above_chance == "yes" for cell in away)
        yield (
            f"On other data, models rank images better than chance in {above} of {len(values)} cases "
            f"(ROC AUC {min(values):.3f} to {max(values):.3f})."
        )
    trivial = {cell.dataset: cell.report.roc_auc for cell in grid.whole_splits(TRIVIAL)}
    better = [cell.report.roc_auc.is_above(trivial[cell.dataset]) for cell in away if cell.dataset in trivial]
    if better:
        yield (
            f"There, their ROC AUC is above that of the trivial baseline in {sum(better)} of {len(better)} cases "
            "(intervals apart)."
        )
    places = {(cell.model, cell.dataset, cell.split) for cell in away}
    gaps = [gap for gap in grid.protocol_gaps if (gap.model, gap.dataset, gap.split) in places]
    if gaps:
        flags = {name: [gap.p_holm <= NOTABLE for gap in gaps if gap.statistic == name] for name in COMPARED}
        counts = [f"{COMPARED[name]} in {sum(own)} of {len(own)}" for name, own in flags.items() if own]
        yield f"There, the format of CIFAKE changes {', '.join(counts)} cases."


def _promises(cells: Sequence[Cell]) -> Iterator[str]:
    promises = [cell.confidence.promise for cell in cells if cell.confidence.promise]
    if promises:
        yield (
            f"The promised error rate of sure verdicts is kept in {promises.count('kept')} of {len(promises)} cases "
            f"and broken in {promises.count('broken')}."
        )


def _alarms(cells: Sequence[Cell]) -> Iterator[str]:
    rates = [(cell.false_alarm_rate, cell) for cell in cells if cell.report.n_real]
    if rates:
        rate, worst = max(rates, key=lambda entry: entry[0].low or 0)
        images = f"{rate.n:,} real images of {worst.dataset}"
        yield f"Most false alarms: {worst.model} calls {rate.format('.1%')} of {images} FAKE."


def to_text(grid: Grid) -> str:
    """Render the main results for a terminal, in lines of at most `COLUMNS` characters, by data set and protocol."""
    width = max(len(shorten(name, _NAME)) for name in ("model", *grid.facts["models"]))
    lines = [f"  {'model':{width}}  {'balanced accuracy':22}  {'ROC AUC':22}  flags"]
    whole = (cell for cell in grid.cells if cell.is_whole_split)
    for (data, protocol), cells in groupby(whole, lambda cell: (f"{cell.dataset} {cell.split}", cell.protocol)):
        group = list(cells)
        rest = f", {protocol}, n = {group[0].report.n:,}"
        lines.append(f"{shorten(data, COLUMNS - len(rest))}{rest}")
        for cell in group:
            accuracy, auc = str(cell.report.balanced_accuracy), str(cell.report.roc_auc)
            row = f"  {shorten(cell.model, _NAME):{width}}  {accuracy:22}  {auc:22}  {flags(cell)}"
            lines.append(row.rstrip())
    return "\n".join([*lines, "", *wrap(FLAGS, COLUMNS)])


def flags(cell: Cell) -> str:
    """Return what a reader must know about the numbers of a cell; see `FLAGS`."""
    found = {
        "small": min(cell.report.n_real, cell.report.n_fake) < SMALL,
        "chance": cell.above_chance in ("no", "below"),
        cell.confidence.promise or "": cell.confidence.promise in ("missed", "broken"),
    }
    return ", ".join(flag for flag, applies in found.items() if applies)


def summary(grid: Grid) -> Table:
    """Return the main results of the whole splits."""
    rows = [
        [*_place(cell), f"{cell.report.n:,}", cell.report.balanced_accuracy, cell.report.roc_auc, flags(cell)]
        for cell in grid.cells
        if cell.is_whole_split
    ]
    return Table(
        f"Each model at its own threshold, with 95% intervals. Flags: {FLAGS}",
        [*PLACE, "n", "balanced accuracy", "ROC AUC", "flags"], rows, align="lllrrrl",
    )  # fmt: skip


def tables_by_section(grid: Grid) -> dict[str, list[Table]]:
    """Return the tables that have rows, by section of the report."""
    by_dataset = groupby(grid.robustness, lambda robustness: robustness.dataset)
    tables = {
        "results": [_cells(grid), _protocols(grid), _more_statistics(grid), _pairs(grid)],
        "confidence": [_confidence(grid)],
        "groups": [_shared_contents(grid), _notable_groups(grid)],
        "false_alarms": [_false_alarms(grid), _false_alarms_by_content(grid)],
        "robustness": [robustness_table(list(measured)) for _, measured in by_dataset],
        "files": [_shortcuts(grid), _near_duplicates(grid)],
    }
    return {section: [table for table in group if table.rows] for section, group in tables.items()}


def _cells(grid: Grid) -> Table:
    rows = [
        [
            *_place(cell),
            f"{cell.report.n_real:,} / {cell.report.n_fake:,}",
            "yes" if min(cell.report.n_real, cell.report.n_fake) < SMALL else "",
            cell.report.balanced_accuracy,
            cell.report.roc_auc,
            cell.above_chance,
            cell.confidence.promise or "",
            cell.report.accuracy_real,
            cell.report.accuracy_fake,
        ]
        for cell in grid.cells
        if cell.is_whole_split
    ]
    caption = (
        "Each model at its own threshold on calibrated probabilities, with 95% bootstrap intervals. Small: fewer than "
        f"{SMALL} images of a label. Above chance: whether the interval of the ROC AUC lies above 0.5. Promise: "
        "whether the error rate outside the unsure band is at most the promised one (missed: higher, but its interval "
        "includes it)."
    )
    header = [*PLACE, "n REAL / FAKE", "small", "balanced accuracy", "ROC AUC", "above chance", "promise"]
    return Table(caption, [*header, "accuracy on REAL", "accuracy on FAKE"], rows, align="lllr")


def _place(cell: Cell) -> list[str]:
    return [f"{cell.dataset} {cell.split}", cell.protocol, cell.model]


def _protocols(grid: Grid) -> Table:
    rows = [
        [
            f"{gap.dataset} {gap.split}",
            gap.model,
            COMPARED[gap.statistic],
            f"{gap.native:.3f}",
            f"{gap.matched:.3f}",
            gap.difference.format("+.3f"),
            f"{gap.p_holm:.2g}",
        ]
        for gap in grid.protocol_gaps
    ]
    caption = (
        "Protocols compared on the same images, each model at its own threshold: matched minus native, with 95% "
        "intervals and p-values of a paired bootstrap within the labels, corrected for the "
        f"{len(rows):,} comparisons of the grid."
    )
    header = ["data", "model", "statistic", "native", "matched", "difference", "corrected p"]
    return Table(caption, header, rows, align="lllr")


def _more_statistics(grid: Grid) -> Table:
    rows = [
        [
            *_place(cell),
            f"{cell.report.n:,}",
            f"{cell.majority:.3f}",
            *(getattr(cell.report, name) for name in STATISTICS),
            "undefined" if cell.oracle_accuracy is None else f"{cell.oracle_accuracy:.3f}",
        ]
        for cell in grid.cells
    ]
    caption = (
        "Further statistics, also of leak-free images and of those without a near-duplicate in training. Majority: "
        "accuracy of always predicting the more frequent label. Oracle: accuracy at the threshold that is best on "
        "these very images, an upper bound and not a result."
    )
    header = [*PLACE, "n", "majority", *STATISTICS.values(), "oracle"]
    return Table(caption, header, rows, align="lllr", folded=True)


def _pairs(grid: Grid) -> Table:
    rows = [
        [f"{pair.dataset} {pair.split}, {pair.protocol}", pair.test.to_words(a=pair.a, b=pair.b), f"{pair.p_holm:.2g}"]
        for pair in grid.pairs
    ]
    caption = (
        "Two models on the same images, each at its own threshold: McNemar's exact test, with p corrected for the "
        f"{len(rows):,} tests of the grid."
    )
    return Table(caption, ["data", "comparison", "corrected p"], rows, align="llr", folded=True)


def _confidence(grid: Grid) -> Table:
    rows: list[list[object]] = []
    for cell in grid.cells:
        confidence, after = cell.confidence, cell.confidence.after or {}
        if not cell.is_whole_split or not (after or confidence.band):
            continue
        losses = [loss for name in ("ece", "nll") for loss in (confidence.before[name], after.get(name, "none"))]
        verdicts: list[object] = ["no band", "", ""]
        if confidence.band:
            promise = f"{confidence.promise or 'undefined'}: at most {100 * confidence.band.promised:g}%"
            verdicts = [confidence.decided, confidence.wrong, promise]
        rows.append([*_place(cell), *losses, *verdicts])
    caption = "Calibration before and after temperature scaling, and verdicts outside the unsure band."
    header = [*PLACE, "ECE", "scaled ECE", "log loss", "scaled log loss", "decided", "wrong among decided", "promise"]
    return Table(caption, header, rows, align="lllr")


def _shared_contents(grid: Grid) -> Table:
    gaps = [(cell, cell.shared) for cell in grid.cells if cell.shared is not None]
    adjusted = holm([gap.p_value for _, gap in gaps])
    rows = [
        [*_place(cell), f"{gap.n:,}", f"{gap.n_rest:,}", f"{gap.rate:.3f}", f"{gap.rate_rest:.3f}", gap, f"{p:.2g}"]
        for (cell, gap), p in zip(gaps, adjusted, strict=True)
    ]
    caption = (
        "Contents in CIFAKE (shared) compared with contents not in CIFAKE (unseen): share of correct verdicts, "
        "averaged over the labels on both sides, with Fisher's exact test."
    )
    header = [*PLACE, "n shared", "n unseen", "shared", "unseen", "gap", "corrected p"]
    return Table(caption, header, rows, align="lllr")


def _notable_groups(grid: Grid) -> Table:
    groups = [
        (cell, f"{kind} {name}", group)
        for cell in grid.cells
        for kind, by_name in (("content", cell.contents), ("generator", cell.generators))
        for name, group in by_name.items()
    ]
    rows = [
        [*_place(cell), name, f"{group.gap.n:,}", group.gap, f"{group.p_holm:.2g}", group.roc_auc]
        for cell, name, group in groups
        if group.p_holm <= NOTABLE
    ]
    caption = (
        f"Of {len(groups):,} contents and generators, each compared with the rest of its cell, those with a corrected "
        f"p of at most {NOTABLE}."
    )
    header = [*PLACE, "group", "n", "gap", "corrected p", "ROC AUC"]
    return Table(caption, header, rows, align="llllr", folded=True)


def _false_alarms(grid: Grid) -> Table:
    rows = [
        [*_place(cell), f"{cell.report.n_real:,}", cell.false_alarm_rate, cell.false_discovery_rate]
        for model in grid.facts["models"]
        for cell in grid.whole_splits(model)
        if cell.report.n_real
    ]
    caption = (
        "Real images called FAKE, with exact 95% intervals; and the share of real images among those called FAKE "
        f"if {100 * PREVALENCE:g}% of all images were fake (Bayes' rule)."
    )
    return Table(caption, [*PLACE, "n REAL", "called FAKE", "real among called FAKE"], rows, align="lllr")


def _false_alarms_by_content(grid: Grid) -> Table:
    trained = [cell for model in grid.trained_models for cell in grid.whole_splits(model)]
    people = {True: "yes", False: "no"}
    contents = [(cell, row) for cell in trained for row in cell.harm if (row.called_fake.n or 0) >= MIN_REAL]
    contents.sort(key=lambda content: (not content[1].shows_people, -(content[1].called_fake.low or 0)))
    rows = [
        [*_place(cell), row.content, UNKNOWN if row.content == UNKNOWN else people[row.shows_people],
         f"{row.called_fake.n:,}", row.called_fake]
        for cell, row in contents[:MAX_CONTENTS]
    ]  # fmt: skip
    caption = (
        "Real images called FAKE by content: contents that show people, by their names, first, then by the lower end "
        f"of the interval; the first {MAX_CONTENTS} with at least {MIN_REAL} real images."
    )
    header = [*PLACE, "content", "shows people", "n REAL", "called FAKE"]
    return Table(caption, header, rows, align="lllllr")


def _shortcuts(grid: Grid) -> Table:
    rows = [
        [shortcut.data, f"{shortcut.n:,}", shortcut.together or shortcut.refused,
         f"{shortcut.worst}: {shortcut.worst_alone}" if shortcut.worst else ""]
        for shortcut in grid.shortcuts
    ]  # fmt: skip
    caption = (
        "Balanced accuracy of a small cross-validated model that sees format, mode, size, bytes and JPEG tables of "
        "the files but no pixel; chance is 0.5."
    )
    return Table(caption, ["data", "files", "all facts together", "best single fact"], rows)


def _near_duplicates(grid: Grid) -> Table:
    rows = [
        [shortcut.data, pair.first, f"{pair.second_found:,} of {pair.n_second:,}",
         f"{pair.first_found:,} of {pair.n_first:,}", f"{pair.across_labels:,} of {pair.pairs:,}"]
        for shortcut in grid.shortcuts
        if (pair := shortcut.duplicates)
    ]  # fmt: skip
    caption = (
        "Near-duplicates of training images, by perceptual hash: images of the data set, training images, and pairs "
        "with different labels."
    )
    return Table(caption, ["data", "compared with", "images", "training images", "pairs across labels"], rows)


def settings_tables(grid: Grid) -> list[Table]:
    """Return the models, the data, and the settings and environment of a grid."""
    facts = grid.facts
    models = [
        [name, model["place"], model["trained_on"], model["weights"][:12], plain_text(model["point"])]
        for name, model in facts["models"].items()
    ]
    data = [
        [name, data["source"], data["split"], f"{data['n']:,}", data["sha256"][:12]]
        for name, data in facts["data"].items()
    ]
    environment = {name: facts.get(name) for name in ("commit", "python", "versions", "machine")}
    environment["versions"] = main_versions(facts["versions"])
    settings = [[name, plain_text(value)] for name, value in {**facts["settings"], **environment}.items()]
    return [
        Table("Models.", ["model", "place", "trained on", "SHA-256", "operating point"], models, wrap=True),
        Table("Data.", ["data", "source", "split", "n", "SHA-256"], data, wrap=True),
        Table("Settings and environment.", ["setting", "value"], settings, wrap=True),
    ]
