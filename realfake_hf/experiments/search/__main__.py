"""Search the topology of the CNN as the paper did.

`python -m realfake_hf.experiments.search --config recipes/paper_search.yaml`

Start the command several times, on one machine or on several that share the folder, to distribute the trainings. To
resume an interrupted search, repeat the command.
"""

import sys

from realfake_hf.cli import command
from realfake_hf.experiments.search.plan import SearchArguments
from realfake_hf.store import write_results


@command(SearchArguments, name="search", description=__doc__, resumable="output_dir", others="allowed")
def main(arguments: SearchArguments) -> None:
    """Run a worker of the search, and print the table."""
    import optuna

    from realfake_hf.experiments.figures import topologies
    from realfake_hf.experiments.search.run import search
    from realfake_hf.experiments.search.table import to_markdown
    from realfake_hf.figures.style import save_figure

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for results in search(arguments):
        table = to_markdown(results)
        write_results(arguments.output_file, results, table)
        if arguments.figure_file is not None and results["rows"]:
            save_figure(topologies(results), arguments.figure_file)
    print(table)


if __name__ == "__main__":
    sys.exit(main())
