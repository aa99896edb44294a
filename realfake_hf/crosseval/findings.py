"""What a grid says, in sentences whose words follow from its numbers."""

from collections.abc import Iterator, Sequence

from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.crosseval.cell import Cell
from realfake_hf.crosseval.cells import away, home, is_home, trained, whole_cells
from realfake_hf.crosseval.consequences import confidence, contents, files, meaning, people, worth
from realfake_hf.crosseval.grid import Grid
from realfake_hf.estimate import Estimate
from realfake_hf.explain_study.names import listed


def findings(grid: Grid) -> list[str]:
    """Give the findings of a grid, the most important first."""
    return [
        sentence
        for found in (
            _transfer,
            _trivial,
            _causes,
            _protocols,
            confidence,
            people,
            worth,
            contents,
            files,
            meaning,
        )
        for sentence in found(grid)
    ]


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


def _trivial(grid: Grid) -> Iterator[str]:
    cells = {cell.dataset: cell for cell in whole_cells(grid, TRIVIAL)}
    if not cells:
        return
    level = [
        f"{cell.model} on {cell.dataset}"
        for name in trained(grid)
        for cell in away(grid, name)
        if not _beats(cell.report.roc_auc, cells[cell.dataset].report.roc_auc)
    ]
    values = [
        f"{cell.report.roc_auc} on {name}" for name, cell in cells.items() if cell.report.roc_auc.value is not None
    ]
    beaten = "Everywhere else the models surely rank better" if not level else f"Not surely better are {listed(level)}"
    if values:
        yield f"A logistic regression on colours and spectrum has a ROC AUC of {listed(values)}. {beaten}."


def _beats(one: Estimate, other: Estimate) -> bool:
    return one.low is not None and other.high is not None and one.low > other.high


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
        for cell in [one for one in whole_cells(grid, model, protocol="native") if not is_home(grid, one)]:
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
