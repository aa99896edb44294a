"""Put a verdict into words: what it means, and the warnings that apply to its image. Imports no torch."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from realfake_hf.labels import Verdict

if TYPE_CHECKING:
    from realfake_hf.data.framing import Framing, Size, View
    from realfake_hf.metrics.operating_point import Band

SURE: Final = {"FAKE": "Likely AI-generated", "REAL": "Likely real"}
UNSURE: Final = {"FAKE": "Unsure, possibly AI-generated", "REAL": "Unsure, possibly real"}
_WHOLE: Final = 0.99  # of an image's area, and more
_DOWNSCALED: Final = 4  # times as wide or high as the model's input


def verdict_words(verdict: Verdict) -> str:
    """Return a verdict in words.

    >>> verdict_words(Verdict("FAKE", 0.6, is_sure=False))
    'Unsure, possibly AI-generated'
    """
    return (UNSURE if verdict.is_sure is False else SURE)[verdict.label]


def band_words(band: "Band | None") -> str:
    """Return the probabilities between which a model is unsure; empty if there are none."""
    return f"unsure between {band.low:.3g} and {band.high:.3g}" if band and band.low < band.high else ""


def warnings_of(
    verdict: Verdict,
    *,
    framing: "Framing | None" = None,
    size: "Size | None" = None,
    file_format: str | None = None,
    trained_format: str | None = None,
) -> list[str]:
    """Return the warnings that apply to a verdict, one sentence or two each, the most important first.

    They do not repeat `Verdict.reason`.

    Args:
        verdict: of the image.
        framing: of `measure_framing(detector.processor)`; None for a processor of several views, or if unknown.
        size: (width, height) of the upright image in pixels; None if unknown.
        file_format: format of the file, such as "PNG"; None if unknown.
        trained_format: format of all training images of the model; None if they had several, or if unknown.
    """
    found = []
    if verdict.is_far and "far" not in verdict.reasons:
        found.append("This image is far from the model's training data: its probability means little.")
    if framing and size:
        found += _framing_warnings(framing.view(size))
    if file_format and trained_format and file_format != trained_format:
        found.append(f"The file is {file_format}; the model was trained on {trained_format} files only.")
    return found


def _framing_warnings(view: "View") -> Iterator[str]:
    what = "The image"
    (own_width, own_height), (width, height) = view.part, view.size
    if view.share < _WHOLE:
        what = "That part"
        yield (
            f"The model sees {_percentage(view.share)} of the image, {own_width:,} x {own_height:,} pixels in the "
            "middle: the rest is cropped."
        )
    if own_width >= _DOWNSCALED * width or own_height >= _DOWNSCALED * height:
        share = width * height / (own_width * own_height)
        yield (
            f"{what} was downscaled from {own_width:,} x {own_height:,} to the model's {width} x {height} pixels, "
            f"{_percentage(share)} of them: most traces that detectors look for are lost."
        )
    elif own_width < width or own_height < height:
        yield f"{what} is smaller than the model's {width} x {height} pixels; it was upscaled."
    if abs(own_width * height - own_height * width) > 0.1 * own_height * width:
        yield f"{what} was stretched: its aspect ratio is not that of the model's input."


def _percentage(share: float) -> str:
    return f"{100 * share:.2g}%" if share >= 0.0001 else "less than 0.01%"  # noqa: PLR2004
