"""The results of a search as tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, Final

from realfake_hf.experiments.search.plan import EXTRACTORS, HEADS, PAPER_ACCURACY, TOP, Topology
from realfake_hf.experiments.trainings import format_spread, spread
from realfake_hf.tables import markdown_table

COLUMNS: Final = (
    "topology", "parameters", "n, test", "seeds", "accuracy, validation", "accuracy, test", "precision", "recall",
    "F1", "log loss", "seconds",
)  # fmt: skip

Row = Mapping[str, Any]


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one table per stage, sorted by validation accuracy."""
    tables = [
        f"### {stage.capitalize()}\n\n{markdown_table(COLUMNS, [_cells(*group) for group in groups])}"
        for stage in (EXTRACTORS, HEADS, TOP)
        if (groups := by_topology(results, stage))
    ]
    return "\n\n".join([*tables, _note(results)])


def _note(results: Mapping[str, Any]) -> str:
    settings = results["settings"]
    epochs, size = settings["num_train_epochs"] or "the recipe's", settings.get("train_size") or "all"
    counts = Counter(_machine(row) for row in results["rows"]).items()
    waiting = f" {results['waiting']} trainings are not finished." if results["waiting"] else ""
    return (
        f"Extractors and heads: {epochs} epochs on {size} training images; top: the recipe's epochs on all of them. "
        "Rows are sorted by validation accuracy; mean ± standard deviation over seeds. The paper reports "
        f"{100 * PAPER_ACCURACY:.2f}% accuracy on test for its best topology. Trainings: "
        f"{', '.join(f'{count} on {machine}' for machine, count in counts)}; workers shared each machine, so the "
        f"seconds exceed those of a training alone.{waiting}"
    )


def _machine(row: Row) -> str:
    machine = row["machine"]
    device = f"{machine.get('cores')} cores" if machine.get("device") == "cpu" else f"one {machine.get('device')}"
    return f"{device} in {'bfloat16' if row.get('bf16') else 'float32'}"


def by_topology(results: Mapping[str, Any], stage: str) -> list[tuple[Topology, list[Row]]]:
    """Group the rows of a stage by topology, sorted by validation accuracy."""
    groups: dict[Topology, list[Row]] = {}
    for row in results["rows"]:
        if row["stage"] == stage:
            groups.setdefault(Topology(**row["topology"]), []).append(row)
    return sorted(groups.items(), key=lambda group: -mean(row["validation"]["accuracy"] for row in group[1]))


def _cells(topology: Topology, rows: Sequence[Row]) -> list[object]:
    return [
        topology,
        f"{rows[0]['parameters']:,}",
        f"{rows[0]['n']['test']:,}",
        len(rows),
        _percent(rows, "validation", "accuracy"),
        *(_percent(rows, "test", name) for name in ("accuracy", "precision", "recall", "f1")),
        format_spread(spread([row["test"]["nll"] for row in rows]), ".3f"),
        _seconds(rows),
    ]


def _percent(rows: Sequence[Row], split: str, name: str) -> str:
    values = [row[split][name] for row in rows]
    return "-" if None in values else f"{format_spread(spread(values), scale=100)}%"


def _seconds(rows: Sequence[Row]) -> str:
    """Return the mean duration of a training, by device if there are several."""
    seconds: dict[str, list[float]] = {}
    for row in rows:
        seconds.setdefault(row["machine"].get("device", ""), []).append(row["seconds"])
    means = {device: f"{mean(values):,.0f}" for device, values in seconds.items()}
    return ", ".join(f"{value} ({device})" if len(means) > 1 else value for device, value in means.items())
