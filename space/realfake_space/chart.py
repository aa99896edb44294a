"""Draw what was measured: how often the sure verdicts of each model were wrong, at home and elsewhere."""

import html
from collections.abc import Iterator, Mapping
from typing import Any, Final

Plain = dict[str, Any]

_WIDTH: Final = 400  # units, about the pixels of a phone: text keeps its size there
_LEFT, _RIGHT = 150, 390  # of the axis
_ROW: Final = 20  # units
_HEAD: Final = 24  # units, of the name of a model
_TICKS: Final = (0.0, 0.2, 0.4, 0.6)
_MOST: Final = 0.65  # the end of the axis


def chart(measured: Mapping[str, Plain]) -> str:
    """Draw a point and an interval for each model and data set as a figure with an inline SVG.

    Args:
        measured: what `realfake_space.answers.read_measured` returned.
    """
    lines, y = [], 8.0
    for model in _first_wild(measured):
        lines.append(f'<text x="0" y="{y + 14:.0f}" class="rf-name">{html.escape(model["name"])}</text>')
        y += _HEAD
        for row in model["rows"]:
            lines.append(_row(row, y + _ROW / 2))
            y += _ROW
    axis = "".join(
        f'<line x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="8" y2="{y:.0f}" class="rf-grid"/>'
        f'<text x="{_x(tick):.1f}" y="{y + 16:.0f}" text-anchor="middle">{tick:.0%}</text>'
        for tick in _TICKS
    )
    return (
        '<figure class="rf-chart"><figcaption>Wrong verdicts among those that a model was sure of</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {y + 22:.0f}" role="img" aria-label="{html.escape(_spoken(measured))}">{axis}'
        f"{''.join(lines)}</svg></figure>"
    )


def findings(measured: Mapping[str, Plain]) -> str:
    """Return three sentences on the chart, and a link to the tables behind it, as HTML."""
    models = _first_wild(measured)
    home = [model["rows"][0]["value"] for model in models if model["home"] == "cifake"]
    away = [share for model in models if model["home"] == "cifake" for share in model["wrong_elsewhere"]]
    [wild] = [model for model in models if model["home"] == "wild"]
    text = (
        f"On images like those of their training, {min(home):.1%} to {max(home):.1%} of sure verdicts of the models "
        f"of CIFAKE were wrong, and on other images {min(away):.0%} to {max(away):.0%}: do not use them on today's "
        f"pictures. wild: {wild['elsewhere']} "
        "A bar is a 95% interval, or the lowest and highest of five folds for images of the web; where the sets are "
        "small, bars are long, and on your images any model may be wrong more often."
    )
    return f'<p class="rf-findings">{html.escape(text)} <a href="#tables">All tables</a></p>'


def _first_wild(measured: Mapping[str, Plain]) -> list[Plain]:
    return sorted(measured.values(), key=lambda model: model["home"] != "wild")


def _x(share: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * share / _MOST


def _row(row: Plain, y: float) -> str:
    kind = "rf-home" if row["is_home"] else "rf-away"
    return (
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{html.escape(row["images"])}</text>'
        f'<line x1="{_x(row["low"]):.1f}" x2="{_x(row["high"]):.1f}" y1="{y:.1f}" y2="{y:.1f}" class="rf-bar {kind}"/>'
        f'<circle cx="{_x(row["value"]):.1f}" cy="{y:.1f}" r="4" class="{kind}"/>'
    )


def _spoken(measured: Mapping[str, Plain]) -> str:
    return "; ".join(_spoken_rows(measured))


def _spoken_rows(measured: Mapping[str, Plain]) -> Iterator[str]:
    for model in _first_wild(measured):
        for row in model["rows"]:
            yield f"{model['name']}, {row['images']}: {row['value']:.1%}, from {row['low']:.1%} to {row['high']:.1%}"
