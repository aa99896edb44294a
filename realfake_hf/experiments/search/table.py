"""The results of a search as a table and a figure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean
from typing import TYPE_CHECKING, Any, Final

from realfake_hf.experiments.search.plan import EXTRACTORS, HEADS, PAPER_ACCURACY, TOP, Topology
from realfake_hf.experiments.trainings import format_spread, spread
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS: Final = (
    "topology", "parameters", "n, test", "seeds", "accuracy, validation", "accuracy, test", "precision", "recall",
    "F1", "log loss", "seconds",
)  # fmt: skip

Row = Mapping[str, Any]


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one table per stage, the best topology on validation first."""
    tables = [
        f"### {stage.capitalize()}\n\n{stage_table(results, stage)}"
        for stage in (EXTRACTORS, HEADS, TOP)
        if _rows(results, stage)
    ]
    return "\n\n".join([*tables, _note(results)])


def _note(results: Mapping[str, Any]) -> str:
    settings, rows = results["settings"], results["rows"]
    places = Counter(_place(row) for row in rows)
    epochs = settings["num_train_epochs"] or "the recipe's number of"
    size = settings.get("train_size") or "all"
    waiting = f" {results['waiting']} trainings are not finished." if results["waiting"] else ""
    return (
        f"Extractors and heads: {epochs} epochs on {size} training images; top: the recipe's epochs on all of them. "
        "Rows are sorted by validation accuracy; mean ± standard deviation over seeds. The paper reports "
        f"{100 * PAPER_ACCURACY:.2f} % accuracy on test for its best topology. Trainings: "
        f"{', '.join(f'{count} on {place}' for place, count in places.items())}; workers shared each machine, so the "
        f"seconds exceed those of a training alone.{waiting}"
    )


def _place(row: Row) -> str:
    machine = row["machine"]
    place = f"{machine.get('cores')} cores" if machine.get("device") == "cpu" else f"one {machine.get('device')}"
    return f"{place} in {'bfloat16' if row.get('bf16') else 'float32'}"


def by_topology(results: Mapping[str, Any], stage: str) -> list[tuple[Topology, list[Row]]]:
    """Group the rows of a stage by topology, the best on validation first."""
    groups: dict[Topology, list[Row]] = {}
    for row in _rows(results, stage):
        groups.setdefault(Topology(**row["topology"]), []).append(row)
    return sorted(groups.items(), key=lambda group: -mean(row["validation"]["accuracy"] for row in group[1]))


def stage_table(results: Mapping[str, Any], stage: str) -> str:
    """Render the topologies of a stage, the best on validation first."""
    return markdown_table(COLUMNS, [_cells(*group) for group in by_topology(results, stage)])


def _cells(topology: Topology, rows: Sequence[Row]) -> list[str]:
    return [
        topology.words,
        f"{rows[0]['parameters']:,}",
        f"{rows[0]['n']['test']:,}",
        f"{len(rows)}",
        _percent(rows, "validation", "accuracy"),
        *(_percent(rows, "test", name) for name in ("accuracy", "precision", "recall", "f1")),
        format_spread(spread([row["test"]["nll"] for row in rows]), ".3f"),
        _seconds(rows),
    ]


def _percent(rows: Sequence[Row], split: str, name: str) -> str:
    values = [row[split][name] for row in rows]
    return "-" if None in values else f"{format_spread(spread(values), scale=100)} %"


def _seconds(rows: Sequence[Row]) -> str:
    """Return the mean seconds of a training, for each device if there are several."""
    by_device: dict[str, list[float]] = {}
    for row in rows:
        by_device.setdefault(row["machine"].get("device", ""), []).append(row["seconds"])
    if len(by_device) == 1:
        return f"{mean(row['seconds'] for row in rows):,.0f}"
    return ", ".join(f"{mean(seconds):,.0f} ({device})" for device, seconds in by_device.items())


def _rows(results: Mapping[str, Any], stage: str) -> list[Row]:
    return [row for row in results["rows"] if row["stage"] == stage]


def draw(results: Mapping[str, Any]) -> "Figure":
    """Draw test accuracy by filters and convolutions, by units and layers, and against the number of parameters."""
    from realfake_hf.figures.comparison import topologies

    panels = {
        (EXTRACTORS, "convolutions", "filters"): _accuracies(results, EXTRACTORS, "num_conv_layers", "num_filters"),
        (HEADS, "dense layers", "units"): _accuracies(results, HEADS, "num_dense_layers", "dense_units"),
    }
    points = {
        stage: [
            (rows[0]["parameters"], mean(row["test"]["accuracy"] for row in rows))
            for _, rows in by_topology(results, stage)
        ]
        for stage in (EXTRACTORS, HEADS, TOP)
        if _rows(results, stage)
    }
    return topologies({key: cells for key, cells in panels.items() if cells}, points, paper_accuracy=PAPER_ACCURACY)


def _accuracies(
    results: Mapping[str, Any], stage: str, row_name: str, column_name: str
) -> dict[tuple[int, int], float | None]:
    """Return the test accuracy by two parts of the topology, None for combinations that were not trained."""
    shapes = {(row["topology"][row_name], row["topology"][column_name]): row for row in _rows(results, stage)}
    rows, columns = ({shape[axis] for shape in shapes} for axis in (0, 1))
    return {
        shape: shapes[shape]["test"]["accuracy"] if shape in shapes else None
        for shape in product(sorted(rows), sorted(columns))
    }
