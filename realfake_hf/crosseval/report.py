"""The report of a grid: warnings, at most five findings, tables and figures, as Markdown or as an HTML page."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.crosseval.cell import MAX_CONTENTS, MIN_REAL, PREVALENCE, Cell, worst_contents
from realfake_hf.crosseval.errors import find_sheets
from realfake_hf.crosseval.figures import (
    MIN_IN_BIN,
    draw_reliability,
    draw_risk_coverage,
    draw_robustness,
    draw_transfer,
)
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.robustness import robustness_table
from realfake_hf.metrics.operating_point import DEFAULT
from realfake_hf.metrics.significance import holm
from realfake_hf.pages.page import PageFigure, Section, write_page
from realfake_hf.tables import Table

SMALL: Final = 100  # images of a label below which a cell is flagged as small
NOTABLE: Final = 0.05  # corrected p-value up to which a group is listed
MAX_FILES: Final = 5  # unreadable files of a data set that a warning names
MORE_STATISTICS: Final = {
    "accuracy": "accuracy",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "tpr_at_5_fpr": "TPR at 5 % FPR",
    "ece": "ECE",
    "brier": "Brier score",
    "nll": "log loss",
}
PLACE: Final = ("data", "protocol", "model")
PROTOCOLS: Final = {
    "native": "Native: images go to the model's own processor unchanged.",
    "matched": "Matched: images are first resized to 32 x 32 pixels and compressed as JPEG of quality 75, like all "
    "images of CIFAKE, so that data sets differ in content and generator but not in resolution or codec.",
    "crop": "Crop: the largest centre square is cut out first, so that no processor changes the aspect ratio.",
}
METHODS: Final = """\
FAKE is the positive class. Each model is evaluated at the threshold stored with it, which was chosen on the validation
split of its training data; nothing was tuned on the images reported here.

Brackets contain 95 % intervals: bootstrap percentiles over images, and exact Clopper-Pearson intervals for rates.
p-values are corrected for the number of tests in their table by Holm's method.

ECE is the expected calibration error over 15 equal-width bins of the probability of FAKE. Temperature and unsure band
were fitted on validation images; the promise is the highest error rate outside the band that an exact test on
validation images admits with 95 % confidence.

The trivial baseline is a logistic regression on colours and power spectra of images resized to 32 x 32 pixels.
Leak-free rows exclude images that also occur, pixel for pixel, in another split of the same source.
"""
CITATIONS: Final = """\
The realfake developers, realfake: telling real photographs from AI-generated images, version 0.1.0.

J. J. Bird and A. Lotfi (2024), CIFAKE: Image Classification and Explainable Identification of AI-Generated Synthetic
Images, IEEE Access 12:15642-15650, doi 10.1109/ACCESS.2024.3356122. Data sets have their own authors and licences.
"""


def to_markdown(grid: Grid, *, folded: bool = True) -> str:
    """Render warnings, findings and tables.

    Args:
        grid: the grid.
        folded: include the tables that the HTML page folds.
    """
    notes = [f"**Warning.** {warning}" for warning in warnings(grid)]
    notes.append("\n".join(f"- {finding}" for finding in findings(grid)))
    tables = [table for section in sections(grid) for table in section.tables if folded or not table.folded]
    return "\n\n".join([*notes, *(table.to_markdown() for table in tables)])


def write_report(grid: Grid, file: Path, *, folder: Path | None = None, shown: Collection[str] | None = None) -> Path:
    """Write the report as an HTML page and return its path.

    Args:
        grid: the grid.
        file: the HTML file; its folder is created.
        folder: output folder of the grid, which contains the error sheets; None omits them.
        shown: data sets whose error sheets are shown, since images may be under copyright; None shows all.
    """
    sheets = {} if folder is None else find_sheets(grid.errors, folder, shown)
    text = ["The most confident errors, with attribution maps and nearest training images in the model's embedding."]
    return write_page(
        file,
        title="Cross-evaluation of detectors",
        subtitle="Do detectors of generated images work on data they were not trained on? "
        f"{len(grid.facts['models'])} models on {len(grid.facts['data'])} data sets.",
        warnings=warnings(grid),
        findings=findings(grid),
        sections=[
            *sections(grid),
            *([Section("errors", "Errors", text, files=sheets)] if sheets else []),
            Section("methods", "Methods", METHODS.split("\n\n")),
            Section("cite", "How to cite", CITATIONS.split("\n\n")),
            Section("settings", "Settings and environment", tables=list(_settings_tables(grid))),
        ],
    )


def warnings(grid: Grid) -> list[str]:
    """Return what a reader must know before reading any number."""
    points = {cell.model: cell.point for cell in grid.cells}
    one_label = dict.fromkeys(
        f"{cell.dataset} {cell.split}" for cell in grid.cells if not (cell.report.n_real and cell.report.n_fake)
    )
    found = [shortcut.text for shortcut in grid.shortcuts if shortcut.warning]
    found += [
        f"{name} has no threshold chosen on validation; 0.5 is used." for name in points if points[name] == DEFAULT
    ]
    found += [f"{name} has images of one label only; ROC AUC and others are undefined." for name in one_label]
    for name, facts in grid.facts["data"].items():
        files = facts["unreadable"]
        if files:
            names = ", ".join([*(file["key"] for file in files[:MAX_FILES]), *(["..."] if files[MAX_FILES:] else [])])
            found.append(f"{len(files):,} unreadable images of {name} are excluded ({names}).")
    return found


def findings(grid: Grid) -> list[str]:
    """Return at most five findings of one sentence each."""
    away = [cell for model in grid.trained_models for cell in grid.away(model)]
    trained = [cell for model in grid.trained_models for cell in grid.whole_splits(model)]
    return [*_transfer(grid, away), *_promises(trained), *_alarms(trained)]


def _transfer(grid: Grid, away: Sequence[Cell]) -> Iterator[str]:
    values = [cell.report.roc_auc.value for cell in away if cell.report.roc_auc.value is not None]
    trivial = {cell.dataset: cell.report.roc_auc for cell in grid.whole_splits(TRIVIAL)}
    matched = {(cell.model, cell.dataset): cell.report.roc_auc for cell in grid.cells if cell.protocol == "matched"}
    better = [cell.report.roc_auc.is_above(trivial[cell.dataset]) for cell in away if cell.dataset in trivial]
    pairs = [
        (cell.report.roc_auc, matched[cell.model, cell.dataset])
        for cell in away
        if (cell.model, cell.dataset) in matched
    ]
    changed = [a.is_above(b) or b.is_above(a) for a, b in pairs if b.value is not None]
    if values:
        above = sum(cell.above_chance == "yes" for cell in away)
        yield (
            f"On data they were not trained on, models rank images better than chance in {above} of {len(values)} "
            f"cases (ROC AUC {min(values):.3f} to {max(values):.3f})."
        )
    if better:
        yield (
            f"There, their ROC AUC exceeds that of the trivial baseline in {sum(better)} of {len(better)} cases, with "
            "intervals that do not overlap."
        )
    if changed and grid.cells[0].protocol == "native":
        yield (
            f"Matching resolution and codec to CIFAKE changes the ROC AUC in {sum(changed)} of {len(changed)} cases, "
            "with intervals that do not overlap."
        )


def _promises(cells: Sequence[Cell]) -> Iterator[str]:
    promises = [cell.confidence.promise for cell in cells if cell.confidence.promise]
    if promises:
        yield (
            f"The promised error rate outside the unsure band is kept in {promises.count('kept')} of {len(promises)} "
            f"cases and broken in {promises.count('broken')}."
        )


def _alarms(cells: Sequence[Cell]) -> Iterator[str]:
    rates = [(cell.false_alarm_rate, cell) for cell in cells if cell.report.n_real]
    if rates:
        rate, worst = max(rates, key=lambda entry: entry[0].low or 0)
        people = any(row.shows_people for cell in cells for row in cell.false_alarms)
        yield (
            f"The highest false alarm rate is that of {worst.model} on {worst.dataset}: {rate.format('.1%')} of "
            f"{rate.n:,} real images are called FAKE{'' if people else '; no content is known to show people'}."
        )


def sections(grid: Grid) -> list[Section]:
    """Return the sections of figures and tables for which the grid has data."""
    parts = [_results(grid), _confidence(grid), _groups(grid), _false_alarms(grid), _robustness(grid), _files(grid)]
    parts = [replace(part, tables=[table for table in part.tables if table.rows]) for part in parts]
    return [part for part in parts if part.figures or part.tables]


def _results(grid: Grid) -> Section:
    sizes = "; ".join(f"{name}: n = {facts['n']:,}" for name, facts in grid.facts["data"].items())
    figure = PageFigure(
        draw=partial(draw_transfer, [cell for cell in grid.cells if cell.is_whole_split]),
        alt="Balanced accuracy and ROC AUC of each model on each data set under each protocol, as in the table.",
        caption=f"Models on data sets, with 95 % bootstrap intervals ({sizes}).",
        reading="Left, the accuracy that a user gets at the model's own threshold. Right, whether fake images score "
        "higher than real ones, which no choice of threshold changes. Points on the dotted line are at chance level.",
    )
    text = [PROTOCOLS[name] for name in dict.fromkeys(cell.protocol for cell in grid.cells)]
    tables = [cells_table(grid), _more_statistics(grid), _pairs(grid)]
    return Section("results", "All models on all data sets", text, [figure], tables)


def cells_table(grid: Grid) -> Table:
    """Return the main table: each cell on a whole split, with flags for how far to trust it."""
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
        "Each model at its own threshold, with 95 % bootstrap intervals. Small: fewer than "
        f"{SMALL} images of a label. Above chance: whether the interval of the ROC AUC lies above 0.5. Promise: "
        "whether the error rate outside the unsure band is at most the promised one (missed: higher, but its interval "
        "includes it)."
    )
    header = [*PLACE, "n REAL / FAKE", "small", "balanced accuracy", "ROC AUC", "above chance", "promise"]
    return Table(caption, [*header, "accuracy on REAL", "accuracy on FAKE"], rows, align="lllr")


def _place(cell: Cell) -> list[str]:
    return [f"{cell.dataset} {cell.split}", cell.protocol, cell.model]


def _more_statistics(grid: Grid) -> Table:
    rows = [
        [
            *_place(cell),
            f"{cell.report.n:,}",
            f"{cell.majority:.3f}",
            *(getattr(cell.report, name) for name in MORE_STATISTICS),
            "undefined" if cell.oracle_accuracy is None else f"{cell.oracle_accuracy:.3f}",
        ]
        for cell in grid.cells
    ]
    caption = (
        "Further statistics, also of leak-free images. Majority: accuracy of always predicting the more frequent "
        "label. Oracle: accuracy at the threshold that is best on these very images, an upper bound and not a result."
    )
    header = [*PLACE, "n", "majority", *MORE_STATISTICS.values(), "oracle"]
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


def _confidence(grid: Grid) -> Section:
    cells = [cell for cell in grid.cells if cell.is_whole_split and cell.protocol == grid.cells[0].protocol]
    sizes = "; ".join({cell.dataset: f"{cell.dataset}: n = {cell.report.n:,}" for cell in cells}.values())
    figures = [
        PageFigure(
            draw=partial(draw_reliability, cells),
            alt="Reliability diagrams and histograms of confidence, one row per data set, one column per model.",
            caption=f"Predicted probability against the share of fakes ({sizes}), in bins of at least {MIN_IN_BIN} "
            "images.",
            reading="On the dotted line, seven of ten images with probability 0.7 are fake; below it, the model "
            "overestimates the probability of FAKE. Wrong verdicts at the right end of the histograms are confident.",
        ),
        PageFigure(
            draw=partial(draw_risk_coverage, cells),
            alt="Error rate against the share of images decided, one panel per data set.",
            caption=f"Error rate if only the most confident verdicts are given ({sizes}).",
            reading="From right to left, fewer images are decided. A curve that falls to 0 belongs to a model whose "
            "confident verdicts are right; a flat curve, to a model whose confidence says nothing about its errors.",
        ),
    ]
    whole = [cell for cell in grid.cells if cell.is_whole_split]
    rows = [_confidence_row(cell) for cell in whole if cell.confidence.after or cell.confidence.band]
    caption = "Calibration before and after temperature scaling, and verdicts outside the unsure band."
    header = [*PLACE, "ECE", "scaled ECE", "log loss", "scaled log loss", "decided", "wrong among decided", "promise"]
    text = ["Are the probabilities calibrated, and are the unsure verdicts the wrong ones?"]
    return Section("confidence", "Confidence", text, figures, [Table(caption, header, rows, align="lllr")])


def _confidence_row(cell: Cell) -> list[object]:
    confidence = cell.confidence
    after = confidence.after or {}
    losses = [loss for name in ("ece", "nll") for loss in (confidence.before[name], after.get(name, "none"))]
    if confidence.band is None:
        return [*_place(cell), *losses, "no band", "", ""]
    promise = f"{confidence.promise or 'undefined'}: at most {100 * confidence.band.promised:g} %"
    return [*_place(cell), *losses, confidence.decided, confidence.wrong, promise]


def _groups(grid: Grid) -> Section:
    gaps = [(cell, cell.shared) for cell in grid.cells if cell.shared is not None]
    adjusted = holm([gap.p_value for _, gap in gaps])
    shared = [
        [*_place(cell), f"{gap.n:,}", f"{gap.n_rest:,}", f"{gap.rate:.3f}", f"{gap.rate_rest:.3f}", gap, f"{p:.2g}"]
        for (cell, gap), p in zip(gaps, adjusted, strict=True)
    ]
    groups = [
        (cell, f"{kind} {name}", group)
        for cell in grid.cells
        for kind, found in (("content", cell.contents), ("generator", cell.generators))
        for name, group in found.items()
    ]
    notable = [
        [*_place(cell), name, f"{group.gap.n:,}", group.gap, f"{group.p_holm:.2g}", group.roc_auc]
        for cell, name, group in groups
        if group.p_holm <= NOTABLE
    ]
    tables = [
        Table(
            "Contents in CIFAKE (shared) compared with contents not in CIFAKE (unseen): share of correct verdicts, "
            "averaged over the labels on both sides, with Fisher's exact test.",
            [*PLACE, "n shared", "n unseen", "shared", "unseen", "gap", "corrected p"],
            shared,
            align="lllr",
        ),
        Table(
            f"Of {len(groups):,} contents and generators, each compared with the rest of its cell, those with a "
            f"corrected p of at most {NOTABLE}.",
            [*PLACE, "group", "n", "gap", "corrected p", "ROC AUC"],
            notable,
            align="llllr",
            folded=True,
        ),
    ]
    text = ["Do unseen contents or generators explain the errors?"]
    return Section("groups", "Contents and generators", text, tables=tables)


def _false_alarms(grid: Grid) -> Section:
    trained = [cell for model in grid.trained_models for cell in grid.whole_splits(model)]
    rates = [
        [*_place(cell), f"{cell.report.n_real:,}", cell.false_alarm_rate, cell.false_discovery_rate]
        for model in grid.facts["models"]
        for cell in grid.whole_splits(model)
        if cell.report.n_real
    ]
    contents = [
        [*_place(cell), row.content, "yes" if row.shows_people else "no", f"{row.called_fake.n:,}", row.called_fake]
        for cell, row in worst_contents(trained)
    ]
    tables = [
        Table(
            "Real images called FAKE, with exact 95 % intervals; and the share of real images among those called FAKE "
            f"if {100 * PREVALENCE:g} % of all images were fake (Bayes' rule).",
            [*PLACE, "n REAL", "called FAKE", "real among called FAKE"],
            rates,
            align="lllr",
        ),
        Table(
            "Real images called FAKE by content: contents that show people first, then by the lower end of the "
            f"interval; the first {MAX_CONTENTS} with at least {MIN_REAL} real images.",
            [*PLACE, "content", "shows people", "n REAL", "called FAKE"],
            contents,
            align="lllllr",
        ),
    ]
    return Section("false_alarms", "False alarms", ["Which real images are called FAKE?"], tables=tables)


def _robustness(grid: Grid) -> Section:
    figures, tables = [], []
    for dataset, group in groupby(grid.robustness, lambda robustness: robustness.dataset):
        measured = list(group)
        figures.append(
            PageFigure(
                draw=partial(draw_robustness, measured),
                alt=f"ROC AUC and error rates on {dataset} against the strength of each corruption, as in the table.",
                caption=f"Robustness to corruptions on {dataset} (n = {measured[0].n_real + measured[0].n_fake:,} at "
                "each step), with 95 % intervals.",
                reading="Corruptions grow stronger from left to right. Top, whether fake images still score higher "
                "than real ones; below, the two error rates at the model's own threshold.",
            )
        )
        tables.append(robustness_table(measured))
    text = ["How do models perform on compressed, blurred or cropped images?"]
    return Section("robustness", "Robustness", text, figures, tables)


def _files(grid: Grid) -> Section:
    rows = [
        [shortcut.data, f"{shortcut.n:,}", shortcut.together or shortcut.refused,
         f"{shortcut.worst}: {shortcut.worst_alone}" if shortcut.worst else ""]
        for shortcut in grid.shortcuts
    ]  # fmt: skip
    copies = [
        [shortcut.data, pair.first, f"{pair.second_found:,} of {pair.n_second:,}",
         f"{pair.first_found:,} of {pair.n_first:,}", f"{pair.across_labels:,} of {pair.pairs:,}"]
        for shortcut in grid.shortcuts
        if (pair := shortcut.duplicates)
    ]  # fmt: skip
    tables = [
        Table(
            "Balanced accuracy of a small cross-validated model that sees format, mode, size, bytes and JPEG tables "
            "of the files but no pixel; chance is 0.5.",
            ["data", "files", "all facts together", "best single fact"],
            rows,
        ),
        Table(
            "Near-duplicates of training images, by perceptual hash: images of the data set, training images, and "
            "pairs with different labels.",
            ["data", "compared with", "images", "training images", "pairs across labels"],
            copies,
        ),
    ]
    text = ["What can a detector learn without looking at images, and which images may it know from training?"]
    return Section("files", "Shortcuts and near-duplicates", text, tables=tables)


def _settings_tables(grid: Grid) -> Iterator[Table]:
    facts = grid.facts
    models = [
        [name, model["place"], model["trained_on"], model["weights"][:12], _plain(model["point"])]
        for name, model in facts["models"].items()
    ]
    data = [
        [name, data["source"], data["split"], f"{data['n']:,}", data["sha256"][:12]]
        for name, data in facts["data"].items()
    ]
    environment = {name: facts.get(name) for name in ("commit", "python", "versions", "machine")}
    settings = [[name, _plain(value)] for name, value in {**facts["settings"], **environment}.items()]
    yield Table("Models.", ["model", "place", "trained on", "SHA-256", "operating point"], models, wrap=True)
    yield Table("Data.", ["data", "source", "split", "n", "SHA-256"], data, wrap=True)
    yield Table("Settings and environment.", ["setting", "value"], settings, wrap=True)


def _plain(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    return value if isinstance(value, str) else json.dumps(value)
