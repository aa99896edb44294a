"""NumPy in, Figure out: how a run learnt, which images are hard, what models cost, where they look, and if that is so.

Figures are made without pyplot and change no rcParams: nothing stays open and threads may draw side by side. Sizes
suit a page 800 pixels wide. Colours are from Okabe & Ito (2008), *Color Universal Design*: REAL blue, FAKE vermillion.
Each function raises ValueError when there is nothing to draw, or when shapes or ranges are not those it documents.
"""

from realfake_hf.explain_study.evidence_figures import HiddenPanel, PlantedPanel, centre_and_rim, planted_bars
from realfake_hf.explain_study.faithfulness_figures import (
    CascadePanel,
    CurvePanel,
    GapRow,
    cascade,
    faithfulness_curves,
    gap_bars,
)
from realfake_hf.explain_study.figures import ControlRow, agreement_against_controls, agreement_matrix
from realfake_hf.figures.comparison import CostPoint, accuracy_against_time
from realfake_hf.figures.dark import darken
from realfake_hf.figures.images import MapPanel, Tile, explanation_sheet, picture_with_maps
from realfake_hf.figures.style import BLUE, COLORS, INK, VERMILLION, WIDTH, save_figure
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
    "CascadePanel",
    "ControlRow",
    "CostPoint",
    "CurvePanel",
    "GapRow",
    "HiddenPanel",
    "MapPanel",
    "PlantedPanel",
    "Tile",
    "accuracy_against_time",
    "agreement_against_controls",
    "agreement_matrix",
    "cascade",
    "centre_and_rim",
    "confusion_matrix",
    "content_accuracy",
    "darken",
    "difficulty_map",
    "explanation_sheet",
    "faithfulness_curves",
    "gap_bars",
    "image_grid",
    "learning_curves",
    "picture_with_maps",
    "planted_bars",
    "save_figure",
]
