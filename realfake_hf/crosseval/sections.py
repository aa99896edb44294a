"""The parts of a grid's page: figures and tables, and how they are to be read."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby

from matplotlib.figure import Figure

from realfake_hf.crosseval.cell import LEAK_FREE, Cell
from realfake_hf.crosseval.drawing import LEAST_IN_BIN, reliability, risk_coverage, robustness
from realfake_hf.crosseval.figures import TransferRow, transfer_dots
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.tables import LEAST_REAL, MOST_HARM, SHOWN, harm_rows
from realfake_hf.data.corruptions import CORRUPTIONS
from realfake_hf.estimate import Estimate
from realfake_hf.pages.page import PageFigure, Section
from realfake_hf.tables import Table

PROTOCOLS = {
    "native": "each picture goes to the model's own processor as it is.",
    "matched": "each picture is first brought to 32 x 32 pixels and JPEG of quality 75 with 4:2:0 colours, as all of "
    "CIFAKE is. What still sets data sets apart then is content and generator, no longer resolution or codec.",
    "crop": "the largest square is cut out of the middle first, so that no processor squeezes the sides.",
}


def sections(grid: Grid) -> list[Section]:
    """Give the parts of the page, those that the grid has."""
    parts = [_grid(grid), _confidence(grid), _groups(grid), _harm(grid), _robustness(grid), _files(grid)]
    return [part for part in parts if part is not None]


def transfer_figure(grid: Grid) -> Figure:
    """Draw balanced accuracy and ROC AUC on every data set under every protocol."""
    cells = [cell for cell in grid.cells if not cell.split.endswith(LEAK_FREE)]
    rows = []
    for (dataset, protocol), found in groupby(cells, lambda cell: (cell.dataset, cell.protocol)):
        own = list(found)
        rows.append(
            TransferRow(
                f"{dataset}, {protocol}",
                dataset,
                {cell.model: _point(cell.report.balanced_accuracy) for cell in own},
                {cell.model: _point(cell.report.roc_auc) for cell in own},
            )
        )
    return transfer_dots(rows)


def _point(one: Estimate) -> Estimate | None:
    return None if one.value is None else Estimate(one.value, one.low, one.high)


def _grid(grid: Grid) -> Section:
    used = list(dict.fromkeys(cell.protocol for cell in grid.cells))
    sizes = "; ".join(f"{name}: n = {one['n']:,}" for name, one in grid.facts["data"].items())
    shown = PageFigure(
        draw=partial(transfer_figure, grid),
        alt="Balanced accuracy and ROC AUC of each model on each data set under each protocol; the table has the "
        "numbers.",
        caption=f"Models on data sets, with 95 % bootstrap intervals ({sizes}).",
        reading="Left, what a user gets, at the threshold that each model carries. Right, whether fakes score above "
        "reals at all, which no shifted threshold can hide. A point on the dotted line knows nothing.",
    )
    lead = " ".join(f"{name.capitalize()}: {PROTOCOLS[name]}" for name in used)
    tables = [_all_cells(grid), _oracle(grid), *([_pairs(grid)] if grid.pairs else [])]
    return Section("grid", "Every model on every data set", [lead], [shown], tables)


def _all_cells(grid: Grid) -> Table:
    return Table(
        "All cells: each model at its own threshold, 95 % bootstrap intervals in brackets. Majority is the accuracy "
        "of always naming the more frequent label.",
        ("cell", "REAL / FAKE", "majority", *SHOWN.values()),
        [
            [
                _place(cell),
                f"{cell.report.n_real:,} / {cell.report.n_fake:,}",
                f"{cell.majority:.3f}",
                *(str(getattr(cell.report, name)) for name in SHOWN),
            ]
            for cell in grid.cells
        ],
    )


def _oracle(grid: Grid) -> Table:
    return Table(
        "Footnote, and no result: the accuracy at the threshold that is best on the measured pictures themselves, "
        "which nobody knows beforehand.",
        ("cell", "threshold carried", "accuracy", "best threshold", "accuracy at it"),
        [
            [
                _place(cell), f"{cell.point.threshold:.3f}", str(cell.report.accuracy), f"{cell.oracle_threshold:.3f}",
                f"{cell.oracle_accuracy:.3f}",
            ]
            for cell in grid.cells
            if cell.oracle_threshold is not None
        ],
        folded=True,
    )  # fmt: skip


def _pairs(grid: Grid) -> Table:
    return Table(
        f"Two models on the same pictures: McNemar's exact test, p corrected for the grid's {len(grid.pairs):,} "
        "tests.",
        ("pictures", "what was found", "corrected p"),
        [
            [f"{one.dataset} {one.split}, {one.protocol}", one.test.to_words(a=one.a, b=one.b), f"{one.p_holm:.2g}"]
            for one in grid.pairs
        ],
        folded=True,
    )


def _place(cell: Cell) -> str:
    return f"{cell.dataset} {cell.split}, {cell.protocol}, {cell.model}"


def _confidence(grid: Grid) -> Section:
    whole = [cell for cell in grid.cells if not cell.split.endswith(LEAK_FREE)]
    native = [cell for cell in whole if cell.protocol == grid.cells[0].protocol]
    sizes = "; ".join(f"{cell.dataset}: n = {cell.report.n:,}" for cell in _one_a_set(native))
    figures = [
        PageFigure(
            draw=partial(reliability, native),
            alt="Reliability diagrams and histograms of confidence, a row a data set, a column a model.",
            caption=f"What models say against what is ({sizes}), in bins of at least {LEAST_IN_BIN} pictures; "
            "intervals of the errors are in the table.",
            reading="On the dotted line, seven of ten pictures that a model gives 0.7 are FAKE. Below it, the model "
            "sees "
            "fakes that are none. Wrong verdicts at the right end of the lower panels are those that sound sure.",
        ),
        PageFigure(
            draw=partial(risk_coverage, native),
            alt="Share of wrong verdicts against the share of pictures decided, a panel a data set.",
            caption=f"What silence buys ({sizes}); intervals of the unsure band are in the table.",
            reading="From right to left more and more pictures are called unsure. A line that falls to 0 is a model "
            "that "
            "knows when it does not know; a flat one is sure of its errors too.",
        ),
    ]
    head = ("cell", "ECE", "ECE scaled", "log loss", "log loss scaled", "decided", "wrong among decided", "promise")
    table = Table(
        "Before and after the temperature that was fitted on validation; verdicts outside the unsure band that was "
        "chosen "
        "on validation. Missed: more wrong than promised, but the interval holds the promise; broken: surely more.",
        head,
        [_confidence_row(cell) for cell in grid.cells if cell.confidence.band or cell.confidence.after],
    )
    lead = "Can a probability be taken at its word, and does a model know when to keep silent?"
    return Section("confidence", "Confidence", [lead], figures, [table] if table.rows else [])


def _one_a_set(cells: Sequence[Cell]) -> list[Cell]:
    return list({cell.dataset: cell for cell in cells}.values())


def _confidence_row(cell: Cell) -> list[str]:
    found = cell.confidence
    after = found.after or {}
    losses = [str(one) for name in ("ece", "nll") for one in (found.before[name], after.get(name, "none"))]
    band = ["no band", "", ""]
    if found.band:
        promise = f"{found.promise}: at most {100 * found.band.promised:g} %" if found.promise else "undefined"
        band = [str(found.decided), str(found.wrong), promise]
    return [f"{cell.dataset} {cell.split}, {cell.protocol}, {cell.model}", *losses, *band]


def _groups(grid: Grid) -> Section | None:
    rows = [
        [
            f"{cell.dataset} {cell.split}, {cell.protocol}, {cell.model}", f"{kind} {name}", f"{group.gap.n:,}",
            str(group.gap), f"{group.p_holm:.2g}", str(group.roc_auc),
        ]
        for cell in grid.cells
        for kind, groups in (("content", cell.contents), ("generator", cell.generators))
        for name, group in groups.items()
    ]  # fmt: skip
    shared = [
        [
            f"{cell.dataset} {cell.split}, {cell.protocol}, {cell.model}", f"{cell.shared.n:,}",
            f"{cell.shared.n_rest:,}", str(cell.shared), f"{cell.shared.p_value:.2g}",
        ]
        for cell in grid.cells
        if cell.shared is not None
    ]  # fmt: skip
    tables = [
        Table(
            "Contents that CIFAKE has too against contents that it lacks: how much more often verdicts on the former "
            "are "
            "right, mean over the labels that occur on both sides, with Fisher's exact test over the labels.",
            ("cell", "n shared", "n unseen", "gap", "p"),
            shared,
        ),
        Table(
            "Each content against the rest of its cell, each generator against the other generators: the gap, its p "
            "after "
            "Holm's correction within the cell, and the ROC AUC within the content or of the generator against all "
            "reals.",
            ("cell", "group", "n", "gap", "corrected p", "ROC AUC"),
            rows,
            folded=True,
        ),
    ]
    known = [table for table in tables if table.rows]
    lead = "Whether a loss elsewhere is one of unseen contents or of unseen generators."
    return Section("groups", "Contents and generators", [lead], [], known) if known else None


def _harm(grid: Grid) -> Section | None:
    rows = [
        [
            f"{cell.dataset} {cell.split}, {cell.model}", one.content, "yes" if one.shows_people else "no",
            str(one.called_fake), f"{one.called_fake.n:,}",
        ]
        for cell, one in harm_rows(grid)
    ]  # fmt: skip
    if not rows:
        return None
    caption = (
        "Share of real pictures called FAKE, with exact 95 % intervals: people first where the content says so, then "
        "the "
        f"highest lower end. The first {MOST_HARM} contents of at least {LEAST_REAL} real pictures."
    )
    table = Table(caption, ("data and model", "content", "shows people", "called FAKE", "n"), rows)
    lead = "A real picture called FAKE is an accusation of somebody. Which contents suffer it most?"
    return Section("harm", "Who is wronged", [lead], [], [table])


def _robustness(grid: Grid) -> Section | None:
    if not grid.robustness:
        return None
    figures, tables = [], []
    for dataset, them in groupby(grid.robustness, lambda one: one.dataset):
        found = list(them)
        n = found[0].n_real + found[0].n_fake
        figures.append(
            PageFigure(
                draw=partial(robustness, found),
                alt=f"ROC AUC and error rates on {dataset} against the strength of each change; the table has the "
                "numbers.",
                caption=f"What models withstand on {dataset} (n = {n:,} at each step), with 95 % intervals.",
                reading="From left to right in each panel the change grows stronger. Above, whether fakes still "
                "score above "
                "reals; below, the two kinds of error at the model's own threshold.",
            )
        )
        head = ["change", *(f"{one.model}: {what}" for one in found for what in ("ROC AUC", "balanced accuracy"))]
        rows = [
            [
                f"{steps[0].kind} {steps[0].strength:g}" if steps[0].kind in CORRUPTIONS else "none",
                *(str(one) for step in steps for one in (step.roc_auc, step.balanced_accuracy)),
            ]
            for steps in zip(*([one.clean, *one.steps] for one in found), strict=True)
        ]
        tables.append(Table(f"{dataset}, step by step.", head, rows, folded=True))
    lead = "Pictures are compressed, blurred, shrunk and cropped on their way; what is left of a verdict then?"
    return Section("robustness", "Robustness", [lead], figures, tables)


def _files(grid: Grid) -> Section | None:
    if not grid.shortcuts:
        return None
    rows = [
        [
            one.data,
            f"{one.n:,}",
            str(one.together or one.refused),
            f"{one.worst}: {one.worst_alone}" if one.worst else "",
        ]
        for one in grid.shortcuts
    ]
    table = Table(
        "Balanced accuracy of a small model that sees format, mode, size, bytes and JPEG tables but no pixel, "
        "cross-validated; chance is 0.5.",
        ("data", "files", "all facts together", "worst fact alone"),
        rows,
    )
    copies = [
        [
            one.data, f"{one.duplicates.n_first:,}" if one.duplicates else "", f"{one.duplicates.first_found:,}",
            f"{one.duplicates.n_second:,}", f"{one.duplicates.second_found:,}",
        ]
        for one in grid.shortcuts
        if one.duplicates
    ]  # fmt: skip
    near = Table(
        "Near-duplicates of training pictures, by perceptual hash.",
        ("data", "compared with", "training pictures that look like one of them", "pictures", "of which look alike"),
        copies,
    )
    lead = "What a detector could learn from without looking at any picture, and what it may have seen before."
    return Section("files", "Shortcuts and near-duplicates", [lead], [], [table, *([near] if copies else [])])
