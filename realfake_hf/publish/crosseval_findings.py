"""What a grid says, in sentences whose words follow from its numbers."""

from collections.abc import Iterator, Sequence
from typing import Final

from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.crosseval.cell import LEAK_FREE, Cell
from realfake_hf.crosseval.grid import Grid
from realfake_hf.measure.association import holm
from realfake_hf.measure.prevalence import accusations
from realfake_hf.measure.rates import Rate
from realfake_hf.measure.report import Estimate
from realfake_hf.publish.study_words import listed

RARE: Final = 0.01  # share of fakes among pictures that are judged
SMALL: Final = 100  # pictures of a label below which a cell is called small
SURE: Final = 0.05


def findings(grid: Grid) -> list[str]:
    """Give the findings of a grid, the most important first."""
    return [
        sentence
        for found in (_transfer, _causes, _protocols, _confidence, _people, _worth, _contents, _files, _meaning)
        for sentence in found(grid)
    ]


def home(grid: Grid, model: str) -> list[Cell]:
    """The native cell of a model on what it was trained on: one, or none."""
    return [cell for cell in whole_cells(grid, model) if _is_home(grid, cell)]


def away(grid: Grid, model: str) -> list[Cell]:
    """The native cells of a model on other data sets."""
    return [cell for cell in whole_cells(grid, model) if not _is_home(grid, cell)]


def whole_cells(grid: Grid, model: str, *, protocol: str | None = None) -> list[Cell]:
    """The cells of a model on whole splits, under a protocol; by default under the first of the grid."""
    wanted = protocol or grid.cells[0].protocol
    return [
        cell
        for cell in grid.cells
        if cell.model == model and cell.protocol == wanted and not cell.split.endswith(LEAK_FREE)
    ]


def trained(grid: Grid) -> list[str]:
    """The models of a grid, the trivial baseline left out."""
    return [name for name in grid.facts["models"] if name != TRIVIAL]


def _is_home(grid: Grid, cell: Cell) -> bool:
    return bool(grid.facts["models"][cell.model]["trained_on"] == grid.facts["data"][cell.dataset]["source"])


def _transfer(grid: Grid) -> Iterator[str]:
    for model in trained(grid):
        at_home = [
            f"On the {cell.split} pictures of {cell.dataset}, which it was trained on, the balanced accuracy of "
            f"{model} "
            f"is {cell.report.balanced_accuracy} and its ROC AUC {cell.report.roc_auc} (n = {cell.report.n:,})."
            for cell in home(grid, model)
        ]
        elsewhere = [
            f"{cell.report.balanced_accuracy} and {cell.report.roc_auc} on {cell.dataset} (n = {cell.report.n:,}"
            f"{', ' + _against_chance(cell.report.roc_auc) if _against_chance(cell.report.roc_auc) else ''})"
            for cell in away(grid, model)
            if cell.report.balanced_accuracy.value is not None
        ]
        lead = "Elsewhere they are" if at_home else f"Balanced accuracy and ROC AUC of {model} are"
        if elsewhere:
            at_home.append(f"{lead} {listed(elsewhere)}; chance is 0.5.")
        if at_home:
            yield " ".join(at_home)


def _against_chance(auc: Estimate) -> str:
    if auc.low is None or auc.high is None:
        return ""
    if auc.high < 0.5:  # noqa: PLR2004
        return "surely worse than chance"
    return "" if auc.low > 0.5 else "not surely better than chance"  # noqa: PLR2004


def _causes(grid: Grid) -> Iterator[str]:
    for model in trained(grid):
        base = home(grid, model)
        words = [
            f"{100 * share:.0f} % on {cell.dataset}" for cell in away(grid, model) for share in _recovered(base, cell)
        ]
        if words:
            shares = [share for cell in away(grid, model) for share in _recovered(base, cell)]
            reading = (
                "the loss is mostly a shifted threshold"
                if min(shares) > 1 / 2
                else "most of the loss is not the threshold's: pictures are ranked wrongly"
                if max(shares) < 1 / 2
                else "how much of the loss is the threshold's differs from set to set"
            )
            yield (
                "Even the best threshold, which nobody knows beforehand, would win back only part of the accuracy "
                "that "
                f"{model} loses: {listed(words)}; {reading}."
            )


def _recovered(base: Sequence[Cell], cell: Cell) -> list[float]:
    """Which share of the accuracy that is lost away from home the oracle's threshold would win back: one, or none."""
    accuracy = cell.report.accuracy.value
    if not base or cell.oracle_accuracy is None or accuracy is None:
        return []
    lost = (base[0].report.accuracy.value or 0) - accuracy
    return [(cell.oracle_accuracy - accuracy) / lost] if lost > 0 else []


def _protocols(grid: Grid) -> Iterator[str]:
    if not {"native", "matched"} <= {cell.protocol for cell in grid.cells}:
        return
    rows = []
    for model in trained(grid):
        matched = {cell.dataset: cell for cell in whole_cells(grid, model, protocol="matched")}
        for cell in [one for one in whole_cells(grid, model, protocol="native") if not _is_home(grid, one)]:
            before, after = cell.report.roc_auc, matched[cell.dataset].report.roc_auc
            rows.append((model, cell.dataset, before, after, _apart(before, after)))
    moved = [
        f"{model} on {dataset} from {before} to {after}" for model, dataset, before, after, apart in rows if apart
    ]
    if not rows:
        return
    lead = "Brought to 32 pixels and JPEG 75, as CIFAKE's pictures are,"
    if moved:
        yield (
            f"{lead} the other sets change these ROC AUCs by more than their intervals: {listed(moved)}. There, "
            "resolution or codec is part of the cause; what remains is content and generator."
        )
        return
    yield (
        f"{lead} the other sets change no ROC AUC by more than its interval: at these sizes of sample neither "
        "resolution nor codec is seen to be the cause; content and generator remain."
    )


def _apart(one: Estimate, two: Estimate) -> bool:
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return False
    return one.high < two.low or two.high < one.low


def _confidence(grid: Grid) -> Iterator[str]:
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


def _people(grid: Grid) -> Iterator[str]:
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
            if one.called_fake.n >= 5 and one.content != "unknown"  # noqa: PLR2004 - fewer say nothing
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


def real_called_fake(cell: Cell) -> Rate:
    """How many of a cell's REAL pictures are called FAKE."""
    return Rate.of(cell.report.false_positives, cell.report.n_real)


def _worth(grid: Grid) -> Iterator[str]:
    for model in trained(grid):
        words = [
            f"{accusations(real_called_fake(cell), found, share_fake=RARE)} if they are like those of {cell.dataset}"
            for cell in whole_cells(grid, model)
            for found in [Rate.of(cell.report.true_positives, cell.report.n_fake)]
            if cell.report.n_real and cell.report.n_fake
        ]
        if words:
            yield (
                f"Where {100 * RARE:g} of 100 pictures is generated, of those that {model} calls FAKE so many would "
                "be "
                f"real: {listed(words)}."
            )


def _contents(grid: Grid) -> Iterator[str]:
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


def _files(grid: Grid) -> Iterator[str]:
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


def _meaning(grid: Grid) -> Iterator[str]:
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
