"""The HTML report of a grid: warnings, findings, figures and tables."""

from collections.abc import Collection, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final

from realfake_hf.crosseval import figures
from realfake_hf.crosseval.errors import find_sheets
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.tables import findings, settings_tables, tables_by_section, warnings
from realfake_hf.pages.page import PageFigure, Section, write_page

PROTOCOLS: Final = {
    "native": "Native: images go to the model's own processor unchanged.",
    "matched": "Matched: images are first resized to 32 x 32 pixels and compressed as JPEG of quality 75, like all "
    "images of CIFAKE, so that data sets differ in content and generator but not in resolution or codec.",
    "crop": "Crop: the largest centre square is cut out first, so that no processor changes the aspect ratio.",
}
SECTIONS: Final = {  # title and text by anchor; the text of the results explains the protocols
    "results": ("All models on all data sets", ""),
    "confidence": ("Confidence", "Are the probabilities calibrated, and are the unsure verdicts the wrong ones?"),
    "groups": ("Contents and generators", "Do unseen contents or generators explain the errors?"),
    "false_alarms": ("False alarms", "Which real images are called FAKE?"),
    "robustness": ("Robustness", "How do models perform on compressed, blurred or cropped images?"),
    "files": (
        "Shortcuts and near-duplicates",
        "What can a detector learn without looking at images, and which images may it know from training?",
    ),
}
SHEETS: Final = (
    "The most confident errors, with attribution maps and nearest training images in the model's embedding."
)
METHODS: Final = """\
FAKE is the positive class. Each model is evaluated at the threshold stored with it, which was chosen on the validation
split of its training data; nothing was tuned on the images reported here.

Brackets contain 95% intervals: bootstrap percentiles over images, and exact Clopper-Pearson intervals for rates.
p-values are corrected for the number of tests in their table by Holm's method.

ECE is the expected calibration error over 15 equal-width bins of the probability of FAKE. Temperature and unsure band
were fitted on validation images; the promise is the highest error rate outside the band that an exact test on
validation images admits with 95% confidence.

The trivial baseline is a logistic regression on colours and power spectra of images resized to 32 x 32 pixels.
Leak-free rows exclude images that also occur, pixel for pixel, in another split of the same source.
"""
CITATIONS: Final = """\
The realfake developers, realfake: telling real photographs from AI-generated images, version 0.1.0.

J. J. Bird and A. Lotfi (2024), CIFAKE: Image Classification and Explainable Identification of AI-Generated Synthetic
Images, IEEE Access 12:15642-15650, doi 10.1109/ACCESS.2024.3356122. Data sets have their own authors and licences.
"""


def write_report(grid: Grid, file: Path, *, folder: Path | None = None, shown: Collection[str] | None = None) -> Path:
    """Write the report as an HTML page, creating its folder, and return its path.

    Error sheets are shown from the output folder of the grid, if given, and only those of the data sets `shown`, since
    images may be under copyright; None shows all.
    """
    sheets = {} if folder is None else find_sheets(grid.errors, folder, shown)
    return write_page(
        file,
        title="Cross-evaluation of detectors",
        subtitle="Do detectors of generated images work on data they were not trained on? "
        f"{len(grid.facts['models'])} models on {len(grid.facts['data'])} data sets.",
        warnings=warnings(grid),
        findings=findings(grid),
        sections=[
            *_sections(grid),
            *([Section("errors", "Errors", [SHEETS], files=sheets)] if sheets else []),
            Section("methods", "Methods", METHODS.split("\n\n")),
            Section("cite", "How to cite", CITATIONS.split("\n\n")),
            Section("settings", "Settings and environment", tables=settings_tables(grid)),
        ],
    )


def _sections(grid: Grid) -> list[Section]:
    """Return the sections for which the grid has figures or tables."""
    tables = tables_by_section(grid)
    drawn = {
        "results": [_transfer_figure(grid)],
        "confidence": _confidence_figures(grid),
        "robustness": list(_robustness_figures(grid)),
    }
    protocols = [PROTOCOLS[name] for name in dict.fromkeys(cell.protocol for cell in grid.cells)]
    return [
        Section(anchor, title, [text] if text else protocols, drawn.get(anchor, []), tables[anchor])
        for anchor, (title, text) in SECTIONS.items()
        if drawn.get(anchor) or tables[anchor]
    ]


def _transfer_figure(grid: Grid) -> PageFigure:
    sizes = "; ".join(f"{name}: n = {facts['n']:,}" for name, facts in grid.facts["data"].items())
    return PageFigure(
        draw=partial(figures.draw_transfer, [cell for cell in grid.cells if cell.is_whole_split]),
        alt="Balanced accuracy and ROC AUC of each model on each data set under each protocol, as in the table.",
        caption=f"Models on data sets, with 95% bootstrap intervals ({sizes}).",
        reading="Left, the accuracy that a user gets at the model's own threshold. Right, whether fake images score "
        "higher than real ones, which no choice of threshold changes. Points on the dotted line are at chance level.",
    )


def _confidence_figures(grid: Grid) -> list[PageFigure]:
    cells = [cell for cell in grid.cells if cell.is_whole_split and cell.protocol == grid.cells[0].protocol]
    sizes = "; ".join({cell.dataset: f"{cell.dataset}: n = {cell.report.n:,}" for cell in cells}.values())
    return [
        PageFigure(
            draw=partial(figures.draw_reliability, cells),
            alt="Reliability diagrams and histograms of confidence, one row per data set, one column per model.",
            caption=f"Predicted probability against the share of fakes ({sizes}), in bins of at least "
            f"{figures.MIN_IN_BIN} images.",
            reading="On the dotted line, seven of ten images with probability 0.7 are fake; below it, the model "
            "overestimates the probability of FAKE. Wrong verdicts at the right end of the histograms are confident.",
        ),
        PageFigure(
            draw=partial(figures.draw_risk_coverage, cells),
            alt="Error rate against the share of images decided, one panel per data set.",
            caption=f"Error rate if only the most confident verdicts are given ({sizes}).",
            reading="From right to left, fewer images are decided. A curve that falls to 0 belongs to a model whose "
            "confident verdicts are right; a flat curve, to a model whose confidence says nothing about its errors.",
        ),
    ]


def _robustness_figures(grid: Grid) -> Iterator[PageFigure]:
    for dataset, group in groupby(grid.robustness, lambda robustness: robustness.dataset):
        measured = list(group)
        n = measured[0].n_real + measured[0].n_fake
        yield PageFigure(
            draw=partial(figures.draw_robustness, measured),
            alt=f"ROC AUC and error rates on {dataset} against the strength of each corruption, as in the table.",
            caption=f"Robustness to corruptions on {dataset} (n = {n:,} at each step), with 95% intervals.",
            reading="Corruptions grow stronger from left to right. Top, whether fake images still score higher than "
            "real ones; below, the two error rates at the model's own threshold.",
        )
