"""The README's tables and sentences about other data sets and about what models withstand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from realfake_hf.crosseval.cell import LEAK_FREE
from realfake_hf.crosseval.findings import findings
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.page import warnings
from realfake_hf.crosseval.robustness import Robustness
from realfake_hf.data.corruptions import CORRUPTIONS
from realfake_hf.estimate import Estimate

COLUMNS: Final = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy_real": "on real",
    "accuracy_fake": "on fake",
    "roc_auc": "ROC AUC",
    "ece": "ECE",
}


def crosseval_table(results: Path) -> str:
    """Render every cell of the published grid on whole splits, and its warnings."""
    return cells_table(_grid(results))


def cells_table(grid: Grid) -> str:
    """Render every cell of a grid on whole splits, and its warnings."""
    head = [f"| data | protocol | model | n | {' | '.join(COLUMNS.values())} |", f"|---|---|---|{'--:|' * 6}"]
    rows = [
        f"| {cell.dataset} {cell.split} | {cell.protocol} | {cell.model} | {cell.report.n:,} | "
        f"{' | '.join(str(getattr(cell.report, name)) for name in COLUMNS)} |"
        for cell in grid.cells
        if not cell.split.endswith(LEAK_FREE)
    ]
    note = (
        "Each model at the threshold that it carries, chosen on validation; 95 % bootstrap intervals in brackets. "
        "Matched: "
        "brought to 32 pixels and JPEG 75 first. Trivial: a logistic regression on colours and spectrum."
    )
    return "\n".join([*head, *rows, "", note, *(f"\n**Warning.** {one}" for one in warnings(grid))])


def crosseval_findings(results: Path) -> str:
    """Render what the published grid says."""
    return "\n".join(f"- {sentence}" for sentence in findings(_grid(results)))


def familiarity_table(results: Path) -> str:
    """Render which pictures models see far from what they learnt from."""
    found = json.loads((results / "familiarity.json").read_text())["models"]
    rows = [
        f"| {model} | {place} | {row['far']['n']:,} | {Estimate.from_dict(row['far'])} | "
        f"{'' if row['roc_auc'] is None else format(row['roc_auc'], '.3f')} |"
        for model, facts in found.items()
        for place, row in facts["sets"].items()
    ]
    some = next(iter(found.values()))
    note = (
        f"Far: beyond the distance to the nearer label's training pictures (Mahalanobis, in the embedding that the "
        f"head sees; {some['n']:,} training pictures) that {some['far']:.0%} of {some['n_validation']:,} validation "
        "pictures exceed. ROC AUC: how well this distance alone tells these pictures from those of the first row."
    )
    return "\n".join(["| model | pictures | n | called far | ROC AUC |", "|---|---|--:|--:|--:|", *rows, "", note])


def robustness_table(results: Path) -> str:
    """Render what models withstand at the strongest step of each change."""
    return _robustness_table(_robustness(results))


def robustness_of(results: Path, model: str) -> str:
    """Render what one model withstands, if that was measured; else nothing."""
    found = [one for one in _robustness(results) if one.model == model]
    return _robustness_table(found) if found else ""


def _robustness(results: Path) -> list[Robustness]:
    rows = json.loads((results / "robustness_cifake.json").read_text())["robustness"]
    return [Robustness.from_dict(one) for one in rows]


def _robustness_table(found: Sequence[Robustness]) -> str:
    names = [f"{one.model}: {what}" for one in found for what in ("ROC AUC", "balanced accuracy")]
    head = [f"| strongest change | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    rows = [("none", [one.clean for one in found])]
    rows += [
        (
            f"{kind} {CORRUPTIONS[kind].steps[-1]:g}" if CORRUPTIONS[kind].unit else kind,
            [one.of_kind(kind)[-1] for one in found],
        )
        for kind in CORRUPTIONS
    ]
    lines = [
        f"| {name} | {' | '.join(str(value) for step in steps for value in (step.roc_auc, step.balanced_accuracy))} |"
        for name, steps in rows
    ]
    units = "; ".join(f"{kind}: {one.unit}" for kind, one in CORRUPTIONS.items() if one.unit)
    first = found[0]
    note = (
        f"{first.n_real + first.n_fake:,} leak-free test pictures at each step, each model at its own threshold, 95 % "
        "intervals over pictures in brackets. Each is one training: another seed of it may withstand more or less. "
        f"{units}."
    )
    return "\n".join([*head, *lines, "", note])


def transfer_table(results: Path) -> str:
    """Render the train x test matrix."""
    found = json.loads((results / "transfer.json").read_text())
    names = {"balanced_accuracy": "balanced accuracy", "roc_auc": "ROC AUC", "accuracy_real": "on real"}
    head = [f"| model | trained on | tested on | n | {' | '.join(names.values())} |", f"|---|---|---|{'--:|' * 4}"]
    rows = [
        f"| {one['model']} | {one['trained_on']} | {one['tested_on']} | {one['n_real'] + one['n_fake']:,} | "
        f"{' | '.join(_mean(one[name]) for name in names)} |"
        for one in found["cells"]
    ]
    plan = found["plan"]
    seeds = "; ".join(f"{name}: {len(one['seeds'])} seeds" for name, one in plan["models"].items())
    sources = "; ".join(f"{name}: {source}" for name, source in plan["sources"].items())
    note = (
        f"{sources}. Mean ± standard deviation over seeds ({seeds}), each at the threshold chosen on its own "
        "validation "
        f"pictures. Every training set has {plan['rows']:,} rows, a smaller source's pictures being repeated; all "
        "pictures are brought to 32 pixels and JPEG 75 first."
    )
    return "\n".join([*head, *rows, "", note])


def _mean(one: Mapping[str, Any]) -> str:
    return f"{one['mean']:.3f}" if one["sd"] is None else f"{one['mean']:.3f} ± {one['sd']:.3f}"


def _grid(results: Path) -> Grid:
    return Grid.from_dict(json.loads((results / "crosseval.json").read_text()))
