"""Measure detectors on data sets they were not trained on: `crosseval.py --models cnn=space/models/cifake-cnn
--datasets cifake=cifake art=photos/ --output_dir runs/grid`.

The output folder contains the report `grid.html`, all cells as `grid.json` and `grid.md`, and the figures. Finished
cells are kept; `--fresh` computes them again.
"""  # noqa: D205 - one command does not fit one line

from textwrap import wrap

from realfake_hf.cli import command
from realfake_hf.crosseval.arguments import CrossevalArguments


@command(CrossevalArguments, name="crosseval.py", description=__doc__, resumable="output_dir")
def main(arguments: CrossevalArguments) -> None:
    """Measure every model on every data set, write the report and print the table."""
    from accelerate import PartialState

    from realfake_hf.crosseval.grid import run_grid
    from realfake_hf.crosseval.report import draw_all, write_report
    from realfake_hf.crosseval.tables import COLUMNS, findings, to_markdown, to_text, warnings
    from realfake_hf.figures.style import save_figure
    from realfake_hf.store import write_results

    grid = run_grid(arguments)
    if not PartialState().is_main_process:
        return
    write_results(arguments.output_dir / "grid.json", grid.to_dict(), to_markdown(grid))
    report = write_report(grid, arguments.output_dir / "grid.html", folder=arguments.output_dir)
    for name, figure in draw_all(grid):
        save_figure(figure, arguments.output_dir / name)
    notes = [*(f"- {finding}" for finding in findings(grid)), *(f"Warning: {warning}" for warning in warnings(grid))]
    lines = [line for note in notes for line in wrap(note, COLUMNS)]
    print(to_text(grid), "", *lines, "", f"report: {report}", sep="\n")
