"""What a search found, as a table and a figure."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from realfake_hf.experiments.search.plan import EXTRACTORS, HEADS, PAPER_ACCURACY, TOP, Topology
from realfake_hf.figures.topologies import GridPanel, ParameterPoint, topologies

Row = Mapping[str, Any]


def to_markdown(table: Mapping[str, Any]) -> str:
    """Render each stage, the best first."""
    parts = [f"{stage}\n\n{stage_table(table, stage)}" for stage in (EXTRACTORS, HEADS, TOP) if _rows(table, stage)]
    return "\n\n".join(parts)


def by_topology(table: Mapping[str, Any], stage: str) -> list[tuple[Topology, list[Row]]]:
    """The rows of a stage by topology, the best on validation first."""
    groups: dict[Topology, list[Row]] = {}
    for row in _rows(table, stage):
        groups.setdefault(Topology(**row["topology"]), []).append(row)
    return sorted(groups.items(), key=lambda pair: -mean(row["validation"]["accuracy"] for row in pair[1]))


def draw(table: Mapping[str, Any]) -> Figure:
    """Draw accuracy on test by filters and convolutions, by units and layers, and against the parameters."""
    panels = [
        _panel(table, EXTRACTORS, "num_filters", "num_conv_layers", ("filters", "convolutions")),
        _panel(table, HEADS, "dense_units", "num_dense_layers", ("units", "dense layers")),
    ]
    points = [
        ParameterPoint(rows[0]["parameters"], mean(row["test"]["accuracy"] for row in rows), stage)
        for stage in (EXTRACTORS, HEADS, TOP)
        for _, rows in by_topology(table, stage)
    ]
    return topologies([panel for panel in panels if panel], points, paper=PAPER_ACCURACY)


def _panel(table: Mapping[str, Any], stage: str, across: str, down: str, names: tuple[str, str]) -> GridPanel | None:
    rows = _rows(table, stage)
    columns, lines = (sorted({row["topology"][name] for row in rows}) for name in (across, down))
    found = {(row["topology"][down], row["topology"][across]): row["test"]["accuracy"] for row in rows}
    values = [[found.get((line, column)) for column in columns] for line in lines]
    return GridPanel(stage, names, columns, lines, values) if rows else None


def stage_table(table: Mapping[str, Any], stage: str) -> str:
    """Render a stage, the best on validation first."""
    head = (
        "| topology | parameters | n | seeds | accuracy, validation | accuracy, test | precision | recall | F1 | "
        "log loss | seconds |\n|---|" + "--:|" * 10
    )
    return "\n".join([head, *(_line(shape, rows) for shape, rows in by_topology(table, stage))])


def _line(shape: Topology, rows: Sequence[Row]) -> str:
    def percent(split: str, name: str) -> str:
        values = [row[split][name] for row in rows]
        return "-" if None in values else f"{_spread([100 * value for value in values], 2)} %"

    cells = [
        shape.words, f"{rows[0]['parameters']:,}", f"{rows[0]['n']['test']:,}", f"{len(rows)}",
        percent("validation", "accuracy"),
        *(percent("test", name) for name in ("accuracy", "precision", "recall", "f1")),
        _spread([row["test"]["nll"] for row in rows], 3), _seconds(rows),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _seconds(rows: Sequence[Row]) -> str:
    """The mean on each kind of machine."""
    by_device: dict[str, list[float]] = {}
    for row in rows:
        by_device.setdefault(row["machine"].get("device", ""), []).append(row["seconds"])
    if len(by_device) == 1:
        return f"{mean(row['seconds'] for row in rows):,.0f}"
    return ", ".join(f"{mean(seconds):,.0f} ({device})" for device, seconds in by_device.items())


def _spread(values: Sequence[float], digits: int) -> str:
    middle = f"{mean(values):.{digits}f}"
    return f"{middle} ± {stdev(values):.{digits}f}" if len(values) > 1 else middle


def _rows(table: Mapping[str, Any], stage: str) -> list[Row]:
    return [row for row in table["rows"] if row["stage"] == stage]
