"""Former names of parts of `style`, until their users are changed."""

from realfake_hf.figures.style import LineStyle as Look
from realfake_hf.figures.style import error_bars as spread
from realfake_hf.figures.style import known, legend_below
from realfake_hf.figures.style import line_styles as line_looks

__all__ = ["Look", "known", "legend_below", "line_looks", "spread"]
