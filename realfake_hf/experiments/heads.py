"""Compare heads on the stored features of a frozen tower, to choose among them within the training images.

`python -m realfake_hf.experiments.heads --plan recipes/wild/heads.yaml --output_dir runs/wild-heads --output_file
results/wild_heads.json`

For each two neighbouring folds, heads are trained on the other folds, and judged on these two. All heads see the same
batches. To resume, repeat the command; finished heads are kept.
"""

import sys
from collections.abc import Mapping
from typing import Any

from realfake_hf.cli import command
from realfake_hf.experiments.trainings import PlanArguments, read_plan
from realfake_hf.store import write_results
from realfake_hf.tables import markdown_table


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one row for each head."""
    rows = []
    for name, result in results["heads"].items():
        gap = result["difference"]
        cells = [f"{gap['mean']:+.4f} ± {gap['sd']:.4f}", f"{gap['p']:.2f}"] if gap else ["", ""]
        rows.append([name, *(f"{value:.4f}" for value in (*result["roc_auc"].values(), result["mean"])), *cells])
    base, *_ = results["heads"]
    note = (
        f"Mean AUC over pairs of neighbouring folds of {results['n']:,} images of {results['n_groups']:,} groups; the "
        "heads are trained on the other folds. These are choices within the training images, not the performance on "
        f"new ones. Difference to “{base}” with its standard deviation over {results['folds']} folds, and the p-value "
        "of a paired t-test over the folds, corrected for the number of heads (Holm). So few folds have little power."
    )
    header = ["head", *results["heads"][base]["roc_auc"], "mean", f"less {base}", "p"]
    return f"{markdown_table(header, rows)}\n\n{note}"


@command(PlanArguments, name="heads", description=__doc__, resumable="output_dir")
def main(arguments: PlanArguments) -> None:
    """Run or resume a plan, and print its table."""
    from realfake_hf.experiments.view_heads import Plan, run_plan

    results = run_plan(read_plan(Plan, arguments.plan), arguments.output_dir)
    print(write_results(arguments.output_file, results, to_markdown(results)))


if __name__ == "__main__":
    sys.exit(main())
