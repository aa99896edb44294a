"""What the README says of the search for a topology, from `results/paper_search.json`."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from realfake_hf.experiments.search.plan import EXTRACTORS, HEADS, PAPER_ACCURACY, PAPERS_WINNER, TOP, Topology
from realfake_hf.experiments.search.table import Row, by_topology, stage_table

Ranking = list[tuple[Topology, list[Row]]]


def paper_search(results: Path) -> str:
    """Say which topology won, and where the paper's winner stands."""
    found = _read(results)
    extractors, heads, top = (by_topology(found, stage) for stage in (EXTRACTORS, HEADS, TOP))
    words = [_of_extractors(extractors, found), _of_heads(heads), _of_finalists(top)]
    if found["waiting"]:
        words.append(f"{found['waiting']} trainings of this search are still to come.")
    return "\n\n".join(["", stage_table(found, TOP), " ".join(word for word in words if word), ""])


def paper_search_all(results: Path) -> str:
    """Every topology that was trained, stage by stage."""
    found = _read(results)
    settings, n = found["settings"], found["rows"][0]["n"]
    note = (
        f"Extractors and heads: {settings['num_train_epochs']:g} passes over {n['train']:,} pictures; finalists: the "
        f"recipe's passes over all. Validation n = {n['validation']:,}, test n = {n['test']:,}; the order is that of "
        f"validation. {_places(found['rows'])}"
    )
    parts = [f"## {stage.capitalize()}\n\n{stage_table(found, stage)}" for stage in (EXTRACTORS, HEADS, TOP)]
    return "\n\n".join(["", note, *parts, ""])


def _places(rows: list[Row]) -> str:
    """Say where the trainings ran, and in which precision."""
    where: dict[str, int] = {}
    for row in rows:
        machine = row["machine"]
        place = f"{machine['cores']} cores" if machine["device"] == "cpu" else f"one {machine['device']}"
        place += " in bfloat16" if row.get("bf16") else " in float32"
        where[place] = where.get(place, 0) + 1
    counts = ", ".join(f"{count} on {place}" for place, count in where.items())
    return f"Trainings: {counts}; workers shared each machine, so that their seconds are more than those of one alone."


def _of_extractors(ranking: Ranking, found: dict[str, Any]) -> str:
    (best, rows), n = ranking[0], found["rows"][0]["n"]["train"]
    said = (
        f"Of {len(ranking)} feature extractors, trained on {n:,} pictures, the best on validation has "
        f"{best.body_words} ({_percent(rows, 'validation')})"
    )
    own = replace(best, num_filters=PAPERS_WINNER.num_filters, num_conv_layers=PAPERS_WINNER.num_conv_layers)
    for place, (topology, others) in enumerate(ranking, 1):
        if topology == own and own != best:
            return f"{said}; the paper's, {own.body_words}, is number {place} ({_percent(others, 'validation')})."
    return f"{said}."


def _of_heads(ranking: Ranking) -> str:
    if not ranking:
        return ""
    (best, rows), (_, worst) = ranking[0], ranking[-1]
    gap = 100 * (_accuracy(rows, "validation") - _accuracy(worst, "validation"))
    return (
        f"Of {len(ranking)} heads on it the best has {best.head_words} ({_percent(rows, 'validation')}), {gap:.2f} "
        "points above the last one."
    )


def _of_finalists(ranking: Ranking) -> str:
    known = dict(ranking)
    if PAPERS_WINNER not in known:
        return ""
    most = max(len(rows) for _, rows in ranking)  # one seed's luck does not win
    (best, rows), own = next(pair for pair in ranking if len(pair[1]) == most), known[PAPERS_WINNER]
    if best == PAPERS_WINNER:
        return "On all pictures the paper's winner wins here, too."
    gap = 100 * (_accuracy(rows, "test") - _accuracy(own, "test"))
    return (
        f"On all pictures the paper's winner, {PAPERS_WINNER.words}, does not win: on the test split it reaches "
        f"{_of_seeds(own)}, and {best.words} {_of_seeds(rows)}, {gap:+.2f} points for "
        f"{rows[0]['parameters'] / own[0]['parameters']:.1f} times the parameters. The paper reports "
        f"{100 * PAPER_ACCURACY:.2f} % for its winner."
    )


def _of_seeds(rows: list[Row]) -> str:
    if len(rows) == 1:
        return f"{_percent(rows, 'test')} with one seed"
    return f"{_percent(rows, 'test')} ± {100 * stdev(row['test']['accuracy'] for row in rows):.2f} ({len(rows)} seeds)"


def _percent(rows: list[Row], split: str) -> str:
    return f"{100 * _accuracy(rows, split):.2f} %"


def _accuracy(rows: list[Row], split: str) -> float:
    return float(mean(row[split]["accuracy"] for row in rows))


def _read(results: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((results / "paper_search.json").read_text(encoding="utf-8"))
    return content
