"""Write the README's tables from `results/`, so that no number is written twice.

`python -m realfake_hf.hub.readme` renders every block between `<!-- results: NAME -->` and `<!-- end -->` anew.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from realfake_hf.cli import parse
from realfake_hf.experiments.search.plan import PAPER_ACCURACY
from realfake_hf.explain_study.findings import headline
from realfake_hf.hub.readme_benchmarks import (
    benchmark_detector,
    benchmark_explanations,
    benchmark_explanations_gpu,
    benchmark_grid,
    benchmark_scoring,
    benchmark_space,
    benchmark_vit,
    benchmarks,
    bfloat16,
    two_nodes,
    two_processes,
)
from realfake_hf.hub.readme_crosseval import (
    crosseval_findings,
    crosseval_table,
    familiarity_table,
    robustness_table,
    transfer_table,
)
from realfake_hf.hub.readme_scale import benchmark_streaming, faults_table, scale_needs, scaling_table
from realfake_hf.hub.readme_search import paper_search, paper_search_all
from realfake_hf.metrics.significance import McNemar

_BLOCK: Final = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
STATISTICS: Final = {
    "accuracy": "accuracy",
    "accuracy_real": "accuracy on real",
    "accuracy_fake": "accuracy on fake (recall)",
    "precision": "precision",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
}
_PERCENT: Final = ("accuracy", "accuracy_real", "accuracy_fake", "precision", "f1", "ece")


@dataclass
class ReadmeArguments:
    """Which files."""

    readme: Path = field(default=Path("README.md"), metadata={"help": "The file with the blocks."})
    results: Path = field(default=Path("results"), metadata={"help": "The folder of results."})


def render(text: str, results: Path) -> str:
    """Give a README with every results block rendered anew.

    Raises:
        ValueError: a block has a name that nothing renders.
        FileNotFoundError: a results file is missing.
    """

    def block(match: re.Match[str]) -> str:
        if match[2] not in RENDERERS:
            raise ValueError(f"wanted a results block named {', '.join(RENDERERS)}; found {match[2]!r}.")
        return f"{match[1]}{RENDERERS[match[2]](results)}\n{match[3]}"

    return _BLOCK.sub(block, text)


def _cifake_cnn(results: Path) -> str:
    summary = _read(results / "cifake_cnn.json")
    whole, clean = summary["test"], summary["test_leak_free"]
    seeds = len(summary["seeds"])
    head = f"| CIFAKE test, {seeds} seeds | official, n = {whole['n']:,} | leak-free, n = {clean['n']:,} |"
    rows = [f"| {title} | {_spread(name, whole)} | {_spread(name, clean)} |" for name, title in STATISTICS.items()]
    wrong = f"{_range(whole['false_positives'])} real called fake, {_range(whole['false_negatives'])} fake called real"
    note = (
        f"Mean ± standard deviation over {seeds} seeds; per cent where marked. Errors per run on the official test: "
        f"{wrong}. The paper reports {100 * PAPER_ACCURACY:.2f} % accuracy for its best network. One training took "
        f"{_range(summary['seconds'], 60)} minutes on {summary['machine']['cores']} cores and at most "
        f"{max(summary['peak_memory_gib']):.2f} GiB of memory."
    )
    return "\n".join([head, "|---|--:|--:|", *rows, "", note])


def _cifake_content(results: Path) -> str:
    cnn, vit = (_read(results / name)["test"]["by_content"] for name in ("cifake_cnn.json", "vit_tiny_cifake_32.json"))
    cells = [
        f"| {name} | {row['n']:,} | {100 * row['mean']:.2f} ± {100 * row['sd']:.2f} % "
        f"| {100 * vit[name]['mean']:.2f} % |"
        for name, row in cnn.items()
    ]
    return "\n".join(["| content | n | accuracy, CNN | accuracy, ViT |", "|---|--:|--:|--:|", *cells])


def _cifake_audit(results: Path) -> str:
    audit = _read(results / "cifake_audit.json")
    within = audit["within"]
    return (
        f"Among the {sum(audit['n'].values()):,} pictures the audit finds {audit['pairs']:,} pairs that are equal "
        f"pixel for pixel: {within['train']:,} within train, {within['test']:,} within test, and "
        f"{audit['across']['train-test']:,} between train and test, so that {audit['leaked']:,} test pictures "
        f"({audit['leaked'] / audit['n']['test']:.2%}) were seen in training. All are "
        f"{' or '.join(name.removeprefix('FAKE ') for name in audit['by_content'])} pictures labelled FAKE."
    )


def _cifake_comparison(results: Path) -> str:
    return comparison_table(_read(results / "cifake_comparison.json"))


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Render what `publish.compare` writes: one row a model, and McNemar's test of each pair."""
    models = comparison["models"]
    tests = next(iter(models.values()))
    whole, clean = (f"n = {tests[name]['n']:,}" for name in ("test", "test_leak_free"))
    head = (
        f"| model | parameters | accuracy, {whole} | leak-free, {clean} | at validation's threshold | ROC AUC | ECE "
        "| errors | minutes |"
    )
    pairs = (f"{McNemar(**pair['test']).to_words(a=pair['a'], b=pair['b'])}" for pair in comparison["pairs"])
    note = (
        "Called FAKE above one half, but for the column with the threshold that the model carries, chosen on "
        "validation. In brackets: 95 % intervals of the accuracies; real called fake + fake called real; where the "
        "training took so long. ROC AUC, ECE and errors are those of the official test. McNemar's exact test on it, "
        "with the "
        f"difference in accuracy and its 95 % interval: {'; '.join(pairs)}."
    )
    return "\n".join([head, f"|---{'|--:' * 8}|", *(_model_row(*model) for model in models.items()), "", note])


def _model_row(name: str, model: Mapping[str, Any]) -> str:
    whole, clean, chosen, training = (
        model[name] for name in ("test", "test_leak_free", "test_at_threshold", "training")
    )
    wrong = (whole["false_positives"], whole["false_negatives"])
    machine = training["machine"]
    place = f"{machine['cores']} cores" if machine["device"] == "cpu" else machine["device"]
    cells = [
        name,
        f"{model['parameters']:,}",
        _with_interval(whole["accuracy"]),
        _with_interval(clean["accuracy"]),
        f"{100 * chosen['accuracy']['value']:.2f} % at {chosen['threshold']:.3f}",
        f"{whole['roc_auc']['value']:.4f}",
        f"{100 * whole['ece']['value']:.2f} %",
        f"{sum(wrong):,} ({wrong[0]:,} + {wrong[1]:,})",
        f"{training['seconds'] / 60:.1f} ({place})",
    ]
    return f"| {' | '.join(cells)} |"


def _with_interval(accuracy: Mapping[str, float | None]) -> str:
    value, *ends = (100 * number for number in accuracy.values() if number is not None)
    return f"{value:.2f} %" + (f" ({ends[0]:.2f}-{ends[1]:.2f})" if ends else "")


def _ablation(results: Path) -> str:
    found = _read(results / "ablation_vit_tiny.json")
    variants, data = found["variants"], found["data"]
    most = max(len(row["seeds"]) for row in variants.values())
    head = f"| change | accuracy on validation, n = {data['validation']:,} | gain in points |"
    rows = [f"| {name} | {_plus_minus(row['eval_accuracy'])} % | {_gain(row)} |" for name, row in variants.items()]
    note = (
        f"Mean ± standard deviation over {most} seeds, each trained on {data['train']:,} pictures; a gain is taken "
        f"seed by seed. All share {_settings(found['settings'])}. A short training says little of settings that pay "
        "off late, as crops, degraded pictures and a running mean may."
    )
    return "\n".join([head, "|---|--:|--:|", *rows, "", note])


def _gain(row: Mapping[str, Any]) -> str:
    return "" if not row["changes"] else _plus_minus(row["gain"], sign="+")


def _plus_minus(spread: Mapping[str, Any], sign: str = "") -> str:
    mean = f"{100 * spread['mean']:{sign}.2f}"
    return mean if spread["sd"] is None else f"{mean} ± {100 * spread['sd']:.2f}"


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"`{name}` {value:,}" if isinstance(value, int) else f"`{name}` {value}" for name, value in settings.items()
    )


def _explanation_study(results: Path) -> str:
    return headline(_read(results / "explanation_study.json"))


def _spread(name: str, table: dict[str, Any]) -> str:
    value = table["statistics"][name]
    if name in _PERCENT:
        return f"{100 * value['mean']:.2f} ± {100 * value['sd']:.2f} %"
    return f"{value['mean']:.4f} ± {value['sd']:.4f}"


def _range(values: Sequence[float], unit: float = 1) -> str:
    low, high = (round(value / unit) for value in (min(values), max(values)))
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


RENDERERS: Final[dict[str, Callable[[Path], str]]] = {
    "cifake_cnn": _cifake_cnn,
    "cifake_content": _cifake_content,
    "cifake_audit": _cifake_audit,
    "cifake_comparison": _cifake_comparison,
    "benchmarks": benchmarks,
    "benchmark_vit": benchmark_vit,
    "benchmark_detector": benchmark_detector,
    "benchmark_grid": benchmark_grid,
    "benchmark_scoring": benchmark_scoring,
    "benchmark_space": benchmark_space,
    "benchmark_streaming": benchmark_streaming,
    "faults": faults_table,
    "paper_search": paper_search,
    "paper_search_all": paper_search_all,
    "scaling": scaling_table,
    "scale_needs": scale_needs,
    "benchmark_explanations": benchmark_explanations,
    "benchmark_explanations_gpu": benchmark_explanations_gpu,
    "bfloat16": bfloat16,
    "ablation_vit_tiny": _ablation,
    "two_processes": two_processes,
    "two_nodes": two_nodes,
    "explanation_study": _explanation_study,
    "crosseval": crosseval_table,
    "crosseval_findings": crosseval_findings,
    "familiarity": familiarity_table,
    "robustness": robustness_table,
    "transfer": transfer_table,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Render the README in place."""
    (arguments,) = parse(ReadmeArguments, argv=argv, description=__doc__)
    arguments.readme.write_text(render(arguments.readme.read_text(), arguments.results))


if __name__ == "__main__":
    main()
