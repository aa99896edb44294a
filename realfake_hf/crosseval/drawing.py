"""The figures of a grid, made from its results."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from matplotlib.figure import Figure

from realfake_hf.crosseval.cell import LEAK_FREE, Cell
from realfake_hf.crosseval.confidence_figures import ReliabilityPanel, reliability_diagrams, risk_coverage_curves
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.robustness import Robustness, Step
from realfake_hf.crosseval.robustness_figures import RobustnessPanel, robustness_curves
from realfake_hf.data.corruptions import CORRUPTIONS
from realfake_hf.estimate import Estimate
from realfake_hf.metrics.calibration import Bin

LEAST_IN_BIN = 10  # pictures below which the share of fakes in a bin says nothing
TURNS = ("crop", "mirror", "upside down")  # kinds of few steps, which share a panel


def draw(grid: Grid) -> Iterator[tuple[str, Figure]]:
    """Give every figure of a grid, each with the name of its file."""
    whole = [cell for cell in grid.cells if not cell.split.endswith(LEAK_FREE)]
    for protocol in dict.fromkeys(cell.protocol for cell in whole):
        cells = [cell for cell in whole if cell.protocol == protocol]
        yield f"reliability-{protocol}.png", reliability(cells)
        yield f"risk_coverage-{protocol}.png", risk_coverage(cells)
    for dataset, found in groupby(grid.robustness, lambda one: one.dataset):
        yield f"robustness-{dataset}.png", robustness(list(found))


def reliability(cells: Sequence[Cell]) -> Figure:
    """Draw the reliability of cells of one protocol, a row a data set."""
    rows = [[_reliability_panel(cell) for cell in row] for _, row in groupby(cells, lambda cell: cell.dataset)]
    return reliability_diagrams(rows)


def risk_coverage(cells: Sequence[Cell]) -> Figure:
    """Draw what silence buys in cells of one protocol, a panel a data set."""
    return risk_coverage_curves(
        {
            f"{dataset}, n = {row[0].report.n:,}": {
                cell.model: (cell.confidence.risk_coverage.coverage, cell.confidence.risk_coverage.risk)
                for cell in row
            }
            for dataset, row in ((name, list(them)) for name, them in groupby(cells, lambda cell: cell.dataset))
        }
    )


def robustness(found: Sequence[Robustness]) -> Figure:
    """Draw what models withstand on one data set."""
    kinds = [kind for kind in CORRUPTIONS if kind not in TURNS]
    panels = [_panel(kind, CORRUPTIONS[kind].unit, found, (kind,)) for kind in kinds]
    panels.append(_panel("crop and turn", "", found, TURNS))
    return robustness_curves(panels, n=found[0].n_real + found[0].n_fake)


def _reliability_panel(cell: Cell) -> ReliabilityPanel:
    confidence = cell.confidence
    said, found = _curve(confidence.bins)
    said_after, found_after = _curve(confidence.bins_after or ())
    histogram = confidence.histogram
    return ReliabilityPanel(
        f"{cell.dataset}, {cell.model}", said, found, said_after, found_after, histogram.edges, histogram.right,
        histogram.wrong,
    )  # fmt: skip


def _curve(bins: Sequence[Bin]) -> tuple[list[float], list[float]]:
    known = [(one.mean_p_fake, one.share_fake) for one in bins if one.n >= LEAST_IN_BIN]
    shown = [(said, found) for said, found in known if said is not None and found is not None]
    return [said for said, _ in shown], [found for _, found in shown]


def _panel(title: str, unit: str, found: Sequence[Robustness], kinds: Sequence[str]) -> RobustnessPanel:
    chosen = {one.model: [one.clean, *(step for kind in kinds for step in one.of_kind(kind))] for one in found}
    labels = ["none", *(_label(step, kinds) for step in next(iter(chosen.values()))[1:])]
    return RobustnessPanel(
        title=title,
        unit=unit,
        steps=labels,
        roc_auc={model: [_point(step.roc_auc) for step in steps] for model, steps in chosen.items()},
        real_called_fake={model: [_error(step.accuracy_real) for step in steps] for model, steps in chosen.items()},
        fake_called_real={model: [_error(step.accuracy_fake) for step in steps] for model, steps in chosen.items()},
    )


def _label(step: Step, kinds: Sequence[str]) -> str:
    if len(kinds) == 1:
        return f"{step.strength:g}"
    return f"{step.kind} {step.strength:g}" if len(CORRUPTIONS[step.kind].steps) > 1 else step.kind


def _point(one: Estimate) -> Estimate | None:
    return None if one.value is None else Estimate(one.value, one.low, one.high)


def _error(one: Estimate) -> Estimate | None:
    if one.value is None or one.low is None or one.high is None:
        return None
    return Estimate(1 - one.value, 1 - one.high, 1 - one.low)
