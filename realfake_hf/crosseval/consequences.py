"""What a grid means for those who use a detector and those who are judged by it, in sentences."""

from collections.abc import Iterator, Sequence
from typing import Final

from realfake_hf.crosseval.cell import Cell
from realfake_hf.crosseval.cells import away, home, trained, whole_cells
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.prevalence import accusations
from realfake_hf.estimate import Estimate
from realfake_hf.explain_study.names import listed
from realfake_hf.metrics.intervals import share
from realfake_hf.metrics.significance import holm

RARE: Final = 0.01  # share of fakes among pictures that are judged
SMALL: Final = 100  # pictures of a label below which a cell is called small
SURE: Final = 0.05


def confidence(grid: Grid) -> Iterator[str]:
    """Say how far probabilities can be trusted, and whether promises are kept."""
    for model in trained(grid):
        at_home, elsewhere = home(grid, model), away(grid, model)
        if not elsewhere:
            continue
        errors = [cell.report.ece.value or 0 for cell in elsewhere]
        before = f" in place of {at_home[0].report.ece.value:.3f} at home" if at_home else ""
        after = [cell.confidence.after["ece"].value or 0 for cell in elsewhere if cell.confidence.after]
        mended = (
            f" The temperature fitted on validation leaves {min(after):.3f} to {max(after):.3f}: calibration does not "
            "travel."
            if after
            else ""
        )
        yield (
            f"The probabilities of {model} are off by {min(errors):.3f} to {max(errors):.3f} on average (ECE) on "
            "other "
            f"sets{before}.{mended}"
        )
        promises = [(cell, cell.confidence.promise) for cell in [*at_home, *elsewhere] if cell.confidence.promise]
        if promises:
            yield _promise(model, promises)


def _promise(model: str, promises: Sequence[tuple[Cell, str]]) -> str:
    band = promises[0][0].confidence.band
    assert band is not None
    words = {"kept": "is kept on", "missed": "is missed, but not surely, on", "broken": "is broken on"}
    named = {
        kept: [
            f"{cell.dataset} ({100 * (cell.confidence.wrong.value or 0):.1f} % wrong)"
            for cell, one in promises
            if one == kept
        ]
        for kept in words
    }
    parts = [f"{words[kept]} {listed(cells)}" for kept, cells in named.items() if cells]
    return (
        f"The promise that at most {100 * band.promised:g} % of the verdicts of {model} outside its unsure band are "
        "wrong "
        f"{'; it '.join(parts)}."
    )


def people(grid: Grid) -> Iterator[str]:
    """Say who is wronged."""
    for model in trained(grid):
        rows = [
            f"{100 * rate.value:.0f} % of {rate.n:,} on {cell.dataset}"
            for cell in whole_cells(grid, model)
            for rate in [real_called_fake(cell)]
            if rate.value is not None
        ]
        worst = [
            (one.called_fake.low or 0, one, cell)
            for cell in whole_cells(grid, model)
            for one in cell.harm
            if (one.called_fake.n or 0) >= 5 and one.content != "unknown"  # noqa: PLR2004 - fewer say nothing
        ]
        if not rows:
            continue
        said = f"Real pictures called FAKE by {model}: {listed(rows)}."
        if worst:
            _, one, cell = max(worst, key=lambda row: row[0])
            said += (
                f" Of the contents that are known, {one.content} in {cell.dataset} suffers most: {one.called_fake}."
            )
        yield said
    if not any(one.shows_people for cell in grid.cells for one in cell.harm):
        yield (
            "No data set of this grid names a content that shows people, so that nothing here says how often "
            "photographs "
            "of people would be called FAKE: that is not known to be rare, it is not known."
        )


def real_called_fake(cell: Cell) -> Estimate:
    """How many of a cell's REAL pictures are called FAKE."""
    return share(cell.report.false_positives, cell.report.n_real)


def worth(grid: Grid) -> Iterator[str]:
    """Say what an accusation is worth where fakes are rare."""
    for model in trained(grid):
        words = [
            f"{accusations(real_called_fake(cell), found, share_fake=RARE)} if they are like those of {cell.dataset}"
            for cell in whole_cells(grid, model)
            for found in [share(cell.report.true_positives, cell.report.n_fake)]
            if cell.report.n_real and cell.report.n_fake
        ]
        if words:
            yield (
                f"Where {100 * RARE:g} of 100 pictures is generated, of those that {model} calls FAKE so many would "
                "be "
                f"real: {listed(words)}."
            )


def contents(grid: Grid) -> Iterator[str]:
    """Say whether unseen contents are judged worse."""
    cells = [cell for name in trained(grid) for cell in whole_cells(grid, name) if cell.shared is not None]
    gaps = [cell.shared for cell in cells if cell.shared is not None]
    if not gaps:
        return
    adjusted = holm([gap.p_value for gap in gaps])
    parts = [
        f"{cell.model} on {cell.dataset} {gap} (n = {gap.n:,} and {gap.n_rest:,}, corrected p = {p:.2g})"
        for cell, gap, p in zip(cells, gaps, adjusted, strict=True)
    ]
    sure = any(p <= SURE for p in adjusted)
    reading = "so contents matter" if sure else "none of it more than chance may do"
    yield (
        "Verdicts on contents that CIFAKE has too are right more often than on unseen ones by so much (less often "
        f"where negative): {listed(parts)}; {reading}."
    )


def files(grid: Grid) -> Iterator[str]:
    """Say what files alone tell, and which sets are small."""
    warned = [f"{one.data} ({one.together})" for one in grid.shortcuts if one.warning]
    if warned:
        yield (
            f"File facts alone tell real from fake better than they should on {listed(warned)} (balanced accuracy; "
            "chance is 0.5): figures on these sets may rest on files and not on pictures."
        )
    small = {
        cell.dataset: cell.report.n for cell in grid.cells if 0 < min(cell.report.n_real, cell.report.n_fake) < SMALL
    }
    if small:
        names = [f"{name} (n = {n:,})" for name, n in small.items()]
        yield f"Few pictures, wide intervals, no fine differences: {listed(names)}."


def meaning(grid: Grid) -> Iterator[str]:
    """Say what all of it means for people."""
    broken = [
        cell
        for name in trained(grid)
        for cell in away(grid, name)
        if cell.confidence.promise == "broken" or (cell.report.balanced_accuracy.high or 1) < 0.75  # noqa: PLR2004
    ]
    if broken:
        yield (
            "What that means: a verdict of these models about a picture from elsewhere is no evidence, however sure "
            "it "
            "sounds. Used to moderate, grade or accuse, they would wrong the people whose pictures differ from the "
            "training set, and these people could not see why. A user has to measure on pictures of the own kind "
            "first."
        )
    elif trained(grid):
        yield (
            "What that means: on the sets measured here the models hold what they promise. Other generators, contents "
            "and people are not among them; measure on pictures of the own kind first."
        )
