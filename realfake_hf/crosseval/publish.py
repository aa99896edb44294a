"""Publish a grid: its JSON and table, main figure and page, or its robustness measurements alone.

`python -m realfake_hf.crosseval.publish --grid runs/crosseval/grid.json --output_file results/crosseval.json`
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from realfake_hf.cli import command, setting


@dataclass
class PublishArguments:
    """A grid and the files to write."""

    grid: Path = field(metadata={"help": "grid.json of crosseval.py."})
    output_file: Path | None = setting(None, "JSON file; its table goes beside it.")
    page_file: Path | None = setting(None, "HTML report.")
    figure_file: Path | None = setting(None, "Main figure.")
    shown: list[str] = setting([], "Data sets whose errors the page shows; by default none.")
    robustness_file: Path | None = setting(None, "JSON file of the robustness measurements; its table goes beside it.")
    robustness_figure: Path | None = setting(None, "Figure of the robustness measurements.")


@command(PublishArguments, name="publish", description=__doc__)
def main(arguments: PublishArguments) -> None:
    """Read the grid, write the files and print the findings."""
    from realfake_hf.crosseval.grid import read_grid
    from realfake_hf.crosseval.report import draw_robustness, draw_transfer, write_report
    from realfake_hf.crosseval.robustness import robustness_table
    from realfake_hf.crosseval.tables import findings, to_markdown
    from realfake_hf.estimate import to_plain
    from realfake_hf.figures.style import save_figure
    from realfake_hf.store import write_results

    grid = read_grid(arguments.grid)
    measured = {robustness.dataset for robustness in grid.robustness}
    if (arguments.robustness_file or arguments.robustness_figure) and len(measured) != 1:
        raise ValueError(
            f"expected a grid of crosseval.py --robustness with one data set in {arguments.grid}; found "
            f"{', '.join(sorted(measured)) or 'none'}."
        )
    if arguments.output_file:
        write_results(arguments.output_file, grid.to_dict(), to_markdown(grid, folded=False))
    if arguments.page_file:
        write_report(grid, arguments.page_file, folder=arguments.grid.parent, shown=arguments.shown)
    if arguments.figure_file:
        save_figure(draw_transfer(cell for cell in grid.cells if cell.is_whole_split), arguments.figure_file)
    if arguments.robustness_file:
        content = {**grid.facts, "robustness": [to_plain(robustness) for robustness in grid.robustness]}
        write_results(arguments.robustness_file, content, robustness_table(grid.robustness).to_markdown())
    if arguments.robustness_figure:
        save_figure(draw_robustness(grid.robustness), arguments.robustness_figure)
    print("\n".join(f"- {sentence}" for sentence in findings(grid)))


if __name__ == "__main__":
    sys.exit(main())
