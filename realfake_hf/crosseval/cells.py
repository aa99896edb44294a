"""Which cells of a grid are whose, and where a model is at home."""

from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.crosseval.cell import LEAK_FREE, Cell
from realfake_hf.crosseval.grid import Grid


def home(grid: Grid, model: str) -> list[Cell]:
    """The native cell of a model on what it was trained on: one, or none."""
    return [cell for cell in whole_cells(grid, model) if is_home(grid, cell)]


def away(grid: Grid, model: str) -> list[Cell]:
    """The native cells of a model on other data sets."""
    return [cell for cell in whole_cells(grid, model) if not is_home(grid, cell)]


def whole_cells(grid: Grid, model: str, *, protocol: str | None = None) -> list[Cell]:
    """The cells of a model on whole splits, under a protocol; by default under the first of the grid."""
    wanted = protocol or grid.cells[0].protocol
    return [
        cell
        for cell in grid.cells
        if cell.model == model and cell.protocol == wanted and not cell.split.endswith(LEAK_FREE)
    ]


def trained(grid: Grid) -> list[str]:
    """The models of a grid, the trivial baseline left out."""
    return [name for name in grid.facts["models"] if name != TRIVIAL]


def is_home(grid: Grid, cell: Cell) -> bool:
    """Whether a cell is of the data that its model was trained on."""
    return bool(grid.facts["models"][cell.model]["trained_on"] == grid.facts["data"][cell.dataset]["source"])
