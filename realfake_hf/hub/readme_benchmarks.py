"""The README's tables of speed and memory."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def benchmarks(results: Path) -> str:
    """Render the ratios of training and loading."""
    training, data = _read(results / "benchmark_training.json"), _read(results / "benchmark_data.json")
    rows = [_ratio(ratio, "training speed") for ratio in training["ratios"]]
    rows += [_ratio(ratio, "loading time") for ratio in data["ratios"] if ratio["over"].endswith("pixels")]
    cold, warm = (data["rows"][f"realfake, {state}: pixels"]["median"] for state in ("cold", "warm"))
    note = (
        f"From CIFAKE's archive to pixels that a training loop can index: {cold:.1f} s at first and {warm:.1f} s "
        f"after that, on {data['machine']['cores']} cores. A training's largest process had at most "
        f"{data['training']['peak_memory_gib']:.2f} GiB."
    )
    return _ratio_table(rows, note)


def benchmark_grid(results: Path) -> str:
    """Say how fast the grid scores beside `pipeline`."""
    found = _read(results / "benchmark_grid.json")
    rows = [_ratio(ratio, "images/s") for ratio in found["ratios"]]
    speeds = ", ".join(f"{name} {row['median']:,.0f}" for name, row in found["rows"].items())
    changes = "; ".join(
        f"{model} on {name} by at most {row['largest_difference']:.3f}, and {row['verdicts']:,} of "
        f"{found['n'][name]:,} verdicts"
        for name, models in found["changed_by_bf16"].items()
        for model, row in models.items()
    )
    note = (
        f"Images/s through both models, on {found['machine']['cores']} cores: {speeds}. In bfloat16 (`--bf16`), where "
        f"a processor has it, scores differ: {changes}. Published grids are computed in float32."
    )
    return _ratio_table(rows, note)


def benchmark_detector(results: Path) -> str:
    """Say how fast a list of files is judged, and what an export changes."""
    found = _read(results / "benchmark_detector.json")
    rows = [_ratio(ratio, "files/s") for ratio in found["ratios"]]
    changes = "; ".join(
        f"{model} {way} {100 * row['accuracy']:.2f} %"
        + (f" (scores by at most {row['largest_difference']:.2g})" if "largest_difference" in row else "")
        for model, ways in found["exported"].items()
        for way, row in ways.items()
    )
    note = (
        f"{found['n']:,} files, in batches where not one by one, on {found['machine']['cores']} cores. Accuracy on "
        f"{found['n_accuracy']:,} test pictures at the model's own threshold: {changes}."
    )
    return _ratio_table(rows, note)


def benchmark_scoring(results: Path) -> str:
    """Say how fast pictures are scored to parquet."""
    found = _read(results / "benchmark_scoring.json")
    speeds = ", ".join(f"{name} {row['median']:,.0f}" for name, row in found["rows"].items())
    note = (
        f"{found['n']:,} pictures through {found['settings']['model']}, on {found['machine']['cores']} cores; "
        f"pictures/s: {speeds}."
    )
    return _ratio_table([_ratio(ratio, "pictures/s") for ratio in found["ratios"]], note)


def benchmark_space(results: Path) -> str:
    """Say what the Space answers under load, alone, and over ten minutes."""
    found = _read(results / "benchmark_space.json")
    clients, soak, alone = found["clients"], found["soak"], found["alone"]
    rows = [_ratio(ratio, "answers/s") for ratio in found["ratios"]]
    seen = "; ".join(
        f"{name} {found['rows'][name]['median']:.0f} answers/s, p50 {_middle(rounds, 'p50'):.2f} s, p95 "
        f"{_middle(rounds, 'p95'):.2f} s"
        for name, rounds in clients.items()
    )
    everyone = [*(one for rounds in clients.values() for one in rounds), *soak["models"].values()]
    failed = sum(one["wrong"] + one["lost"] for one in everyone)
    note = (
        f"{found['settings']['clients']} clients at once for {found['settings']['seconds']:.0f} s, uploads included, "
        f"on the {found['machine']['cores']} cores of the server ({found['machine']['processor']}): {seen}. "
        f"Answers that were errors, others than expected, or lost: {failed:,} of "
        f"{sum(one['n'] for one in everyone):,}. Memory in the last minute of "
        f"{found['settings']['soak_seconds'] / 60:.0f} beside the second: {soak['growth']:.2f} x. First answer "
        f"{alone['first_answer_seconds']:.1f} s after the start; a warm ViT's answer with its rollout map, upload "
        f"apart: median {1000 * statistics.median(alone['explain_seconds']):.0f} ms, "
        f"n = {len(alone['explain_seconds'])}."
    )
    return _ratio_table(rows, note)


def _middle(rounds: Sequence[Mapping[str, float]], name: str) -> float:
    return statistics.median(one[name] for one in rounds)


def benchmark_vit(results: Path) -> str:
    """Render the speed of a ViT at several sizes."""
    found = _read(results / "benchmark_vit.json")
    speeds, memory = found["rows"], found["memory"]
    ratios = {(ratio["over"], ratio["under"]): ratio["ratio"]["median"] for ratio in found["ratios"]}

    def row(geometry: str, way: str, beside: Sequence[str]) -> str:
        own = f"{geometry} {way}"
        times = [f"{ratios[own, f'{geometry} {other}']:.2f}" for other in beside]
        cells = [geometry, way, f"{speeds[own]['median']:.0f}", *times, f"{memory[own]['peak_memory_gib']:.2f}"]
        return f"| {' | '.join(cells)} |"

    geometries = dict.fromkeys(name.split(" ")[0] for name in speeds)
    asked = ("asking: random tensors", "asking: pipeline, batches")
    trained = ("training: random tensors", "training: HF example's way")
    rows = [row(geometry, "training: trainer", trained) for geometry in geometries]
    rows += [row(geometry, "asking: detector", asked) for geometry in geometries]
    head = "| image / patch | way | images/s | x random tensors | x Hugging Face's way | peak GiB |"
    note = (
        f"Medians of {next(iter(speeds.values()))['n']} rounds on {found['machine']['cores']} cores, batches of "
        f"{found['settings']['batch_size']}. Random tensors: the same model on one batch that lies ready. Hugging "
        "Face's way: in training that of its image classification example, in asking `pipeline` with the same batches."
    )
    note += "".join(
        f" With `--torch_compile`, training at {over.split(' ')[0]} is {ratio:.2f} x as fast."
        for (over, _), ratio in ratios.items()
        if over.endswith(", compiled")
    )
    return "\n".join([head, "|---|---|--:|--:|--:|--:|", *rows, "", note])


def benchmark_explanations(results: Path) -> str:
    """Render what explanations cost on a CPU."""
    note = (
        "Script: the loop of rollout scripts that are passed around; discarding: the lowest weights dropped, as is "
        "their default."
    )
    return _explanations(_read(results / "benchmark_explanations.json"), note)


def benchmark_explanations_gpu(results: Path) -> str:
    """Render what explanations cost on a GPU."""
    found = _read(results / "benchmark_explanations_gpu.json")
    return _explanations(found, f"The ways are those above, as of commit {found['commit'][:7]}.")


def _explanations(found: Mapping[str, Any], note: str) -> str:
    of_memory = found.get("memory", {"ratios": []})["ratios"]
    rows = [_ratio(ratio, "time") for ratio in found["ratios"]] + [_ratio(ratio, "memory") for ratio in of_memory]
    machine = found["machine"]
    place = f"{machine['cores']} cores" if machine["device"] == "cpu" else f"one {machine['device']}"
    return _ratio_table(
        rows,
        f"Time a picture of a ViT-Tiny at an image / patch size, in batches of {found['settings']['batch_size']} "
        f"unless it says one at a time, on {place}: {_speeds(found['rows'])}. {note}",
    )


def _speeds(rows: Mapping[str, Any]) -> str:
    asked = [name for name in rows if name.endswith((" rollout", " relevance"))]
    return ", ".join(f"{name} {1000 / rows[name]['median']:,.0f} images/s" for name in asked)


def bfloat16(results: Path) -> str:
    """Say what judging in bfloat16 changes."""
    found = _read(results / "bfloat16.json")
    [ratio] = found["ratios"]
    changes = "; ".join(
        f"{name} ({row['n']:,} pictures): `p_fake` by at most {row['largest_difference']:.3f}, on average "
        f"{row['mean_difference']:.5f}, {row['other_labels']} other labels, {row['other_decisions']} others that are "
        "sure or unsure"
        for name, row in found["changes"].items()
    )
    return (
        f"With `Detector.from_pretrained(..., bf16=True)`, as the page judges where the processor multiplies in "
        f"bfloat16, the ViT answers {ratio['ratio']['median']:.2f} x as fast ({ratio['ratio']['min']:.2f}-"
        f"{ratio['ratio']['max']:.2f}, {ratio['ratio']['n']} rounds, {found['machine']['cores']} cores). What "
        f"changes: {changes}."
    )


def two_processes(results: Path) -> str:
    """Say what a second process changes."""
    found = _read(results / "two_processes.json")
    one, several = found["runs"]
    points = "and ".join(
        f"{value:+.2f} on {split} (n = {one['n'][split]:,}) " for split, value in found["points"].items()
    )
    return (
        f"{several['processes']} processes beside one, the same batch in total, one pass over "
        f"{found['settings']['train_size']:,} pictures: {points}points of accuracy, in {found['seconds_ratio']:.2f} x "
        f"the seconds on {found['machine']['cores']} cores."
    )


def two_nodes(results: Path) -> str:
    """Say what a second machine changes."""
    found = _read(results / "two_nodes.json")
    training, grid = found["training"], found["grid"]
    points = "and ".join(
        f"{value:+.2f} on {split} (n = {training['runs'][0]['n'][split]:,}) "
        for split, value in training["points"].items()
    )
    place = "two network namespaces joined by a virtual cable" if found["are_apart"] else "loopback"
    return (
        f"Two machines ({place}) beside one, one pass over {found['settings']['train_size']:,} pictures: {points}"
        f"points of accuracy (allowed: {training['allowed_points']}). A grid of {grid['models']} models on "
        f"{grid['n']:,} pictures: {grid['values_apart']:,} of {grid['values']:,} values differ in any digit."
    )


def _ratio_table(rows: Sequence[str], note: str) -> str:
    return "\n".join(["| ratio | median (range over rounds) | goal |", "|---|--:|--:|", *rows, "", note])


def _ratio(ratio: dict[str, Any], what: str) -> str:
    found = ratio["ratio"]
    spread = f"{found['median']:.2f} ({found['min']:.2f}-{found['max']:.2f}, {found['n']} rounds)"
    bounds = {"at least": ratio["goal"], "at most": ratio.get("limit")}
    goal = ", ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
    return f"| {what}: {ratio['over']} / {ratio['under']} | {spread} | {goal} |"


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content
