"""NumPy in, Figure out: how a run learnt, which images are hard, what it confuses, what models cost, where they look.

Figures are made without pyplot and change no rcParams: nothing stays open and threads may draw side by side. Sizes
suit a page 800 pixels wide. Colours are from Okabe & Ito (2008), *Color Universal Design*: REAL blue, FAKE vermillion.
Each function raises ValueError when there is nothing to draw, or when shapes or ranges are not those it documents.
"""

from realfake_hf.figures.explanations import MapPanel, Tile, explanation_sheet, picture_with_maps
from realfake_hf.figures.style import BLUE, COLORS, INK, VERMILLION, WIDTH, save_figure
from realfake_hf.figures.tradeoff import CostPoint, accuracy_against_time
from realfake_hf.figures.training import (
    confusion_matrix,
    content_accuracy,
    difficulty_map,
    image_grid,
    learning_curves,
)

__all__ = [
    "BLUE",
    "COLORS",
    "INK",
    "VERMILLION",
    "WIDTH",
    "CostPoint",
    "MapPanel",
    "Tile",
    "accuracy_against_time",
    "confusion_matrix",
    "content_accuracy",
    "difficulty_map",
    "explanation_sheet",
    "image_grid",
    "learning_curves",
    "picture_with_maps",
    "save_figure",
]
