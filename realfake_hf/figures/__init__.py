"""Figures that several slices share: training runs, images with maps, comparisons of models, and their common style.

Figures are made without pyplot and change no rcParams, so that no state is left behind and threads can draw in
parallel. Sizes suit a page 800 pixels wide. Colours are from Okabe & Ito (2008), *Color Universal Design*: REAL blue,
FAKE vermillion. Each function raises ValueError if there is nothing to draw, or if shapes or ranges are wrong.
"""

from realfake_hf.figures.comparison import accuracy_against_time
from realfake_hf.figures.images import MapPanel, error_sheet, explanation_sheet, image_with_maps
from realfake_hf.figures.style import BLUE, COLORS, INK, VERMILLION, WIDTH, darken, save_figure
from realfake_hf.figures.training import confusion_matrix, content_accuracy, difficulty_map, learning_curves

__all__ = [
    "BLUE",
    "COLORS",
    "INK",
    "VERMILLION",
    "WIDTH",
    "MapPanel",
    "accuracy_against_time",
    "confusion_matrix",
    "content_accuracy",
    "darken",
    "difficulty_map",
    "error_sheet",
    "explanation_sheet",
    "image_with_maps",
    "learning_curves",
    "save_figure",
]
