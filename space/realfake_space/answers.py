"""Put predictions into words and HTML: the verdict, what its probability means, warnings, and file metadata."""

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from realfake_hf.data.metadata import FileMetadata
from realfake_hf.metrics.operating_point import OperatingPoint
from realfake_space.framing import View
from realfake_space.worker import ModelFacts, Prediction

MEASURED: Final = Path(__file__).resolve().parents[1] / "measured.json"
SURE: Final = {"FAKE": "Likely AI-generated", "REAL": "Likely real"}
UNSURE: Final = {"FAKE": "Unsure, possibly AI-generated", "REAL": "Unsure, possibly real"}
COLUMNS: Final = ("file", "model", "verdict", "p_fake", "decided", "warnings")  # of the table of several images
_WHOLE: Final = 0.99  # of an image's area, and more
_DOWNSCALED: Final = 4  # times as wide or high as the model's input

Plain = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The answer of one model to one image."""

    model: str  # its name
    verdict: str  # in words
    label: str  # REAL or FAKE, by the model's threshold
    p_fake: float  # probability that the image is AI-generated, in [0, 1]
    decided: bool | None  # whether the verdict is sure; None if the model has neither a band nor limits
    reason: str  # why the verdict is unsure, in a sentence; else empty
    meaning: str  # share of AI-generated images among test images with such a probability
    warnings: tuple[str, ...]  # warnings that apply to this image

    def to_dict(self) -> Plain:
        """Return plain JSON."""
        return {**asdict(self), "warnings": list(self.warnings)}

    def to_row(self, file: str) -> list[str]:
        """Return the cells of `COLUMNS`."""
        decided = {True: "yes", False: "no", None: ""}[self.decided]
        notes = " ".join(filter(None, (self.reason, *self.warnings)))
        return [file, self.model, self.verdict, f"{self.p_fake:.6f}", decided, notes]


def read_measured(file: Path = MEASURED) -> Mapping[str, Plain]:
    """Read the evaluation of the models, by digest of their weights."""
    measured: Mapping[str, Plain] = json.loads(file.read_text(encoding="utf-8"))["models"]
    return measured


def limitation(measured: Mapping[str, Plain]) -> str:
    """Return a sentence on how often the models' sure verdicts are wrong on other data sets."""
    shares = [share for model in measured.values() for share in model["wrong_elsewhere"]]
    return (
        f"On data sets other than their own, these models were wrong in {min(shares):.0%} to {max(shares):.0%} of the "
        "verdicts that they were sure of."
    )


def answer(name: str, model: ModelFacts, prediction: Prediction, measured: Mapping[str, Plain]) -> Answer:
    """Put a prediction into words.

    Args:
        name: name of the model.
        model: its facts.
        prediction: for one upload.
        measured: what `read_measured` returned.
    """
    verdict = prediction.verdict
    evaluation = measured.get(model.digest)
    return Answer(
        model=name,
        verdict=(UNSURE if verdict.is_sure is False else SURE)[verdict.label],
        label=verdict.label,
        p_fake=round(verdict.p_fake, 6),
        decided=verdict.is_sure,
        reason=verdict.reason or "",
        meaning=_meaning(verdict.p_fake, evaluation),
        warnings=tuple(_warnings(model, prediction, evaluation)),
    )


def _meaning(p_fake: float, evaluation: Plain | None) -> str:
    if evaluation is None:
        return "This model was not evaluated here: the meaning of its probability is unknown."
    row = next(row for row in evaluation["bins"] if p_fake < row["high"] or row is evaluation["bins"][-1])
    return (
        f"{row['share_fake']:.1%} of the {row['n']:,} test images of {evaluation['home'].upper()} with a probability "
        f"from {row['low']:.2f} to {row['high']:.2f} were AI-generated. {evaluation['elsewhere']}"
    )


def _warnings(model: ModelFacts, prediction: Prediction, evaluation: Plain | None) -> Iterator[str]:
    if prediction.verdict.is_far:
        yield "This image is far from the model's training data: its probability means little."
    if model.framing:
        yield from _framing_warnings(model.framing.view(prediction.size))
    if evaluation and evaluation["format"] not in (None, prediction.metadata.format):
        yield f"The file is {prediction.metadata.format}; the model was trained on {evaluation['format']} files only."


def _framing_warnings(view: View) -> Iterator[str]:
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


def card(item: Answer, point: OperatingPoint) -> str:
    """Render an answer as HTML: verdict, a scale with threshold and unsure band, meaning, warnings."""
    kind = "unsure" if item.decided is False else item.label.lower()
    band = ""
    if point.band and point.band.low < point.band.high:
        left, width = 100 * point.band.low, 100 * (point.band.high - point.band.low)
        band = f'<span class="rf-band" style="left:{left:.1f}%;width:{width:.1f}%"></span>'
    scale = (
        f'<div class="rf-scale" role="img" aria-label="probability of AI-generated: {item.p_fake:.3f}, threshold '
        f'{point.threshold:.3f}">{band}<span class="rf-threshold" style="left:{100 * point.threshold:.1f}%"></span>'
        f'<span class="rf-mark" style="left:{100 * item.p_fake:.1f}%"></span></div>'
        '<div class="rf-ends"><span>real</span><span>AI-generated</span></div>'
    )
    warnings = "".join(f"<li>{html.escape(warning)}</li>" for warning in item.warnings)
    return (
        f'<div class="rf-card rf-{kind}" role="status"><p class="rf-model">{html.escape(item.model)}</p>'
        f'<p class="rf-verdict">{html.escape(item.verdict)}</p>'
        f'<p class="rf-p">probability of AI-generated: <strong>{item.p_fake:.3f}</strong></p>{scale}'
        + (f'<p class="rf-reason">{html.escape(item.reason)}</p>' if item.reason else "")
        + f'<p class="rf-meaning">{html.escape(item.meaning)}</p>'
        + (f'<ul class="rf-warnings" aria-label="warnings">{warnings}</ul>' if warnings else "")
        + "</div>"
    )


def rejection(message: str) -> str:
    """Render a message in place of an answer as HTML."""
    return f'<div class="rf-card rf-refused" role="alert"><p>{html.escape(message)}</p></div>'


def placeholder(name: str) -> str:
    """Render the place of a model's answer before there is an image as HTML."""
    return f'<div class="rf-card rf-waiting"><p class="rf-model">{html.escape(name)}</p><p>Upload an image.</p></div>'


def metadata_table(metadata: FileMetadata) -> str:
    """Render the metadata of a file as HTML."""
    frames = ", several frames, of which the first is used" if metadata.has_more_frames else ""
    exif = "present" + (f": {metadata.camera}" if metadata.camera else "") if metadata.has_exif else "none"
    credentials = "present, signatures not checked" if metadata.has_content_credentials else "none"
    rows = {
        "format": f"{metadata.format}, {metadata.mode}{frames}",
        "size": f"{metadata.width:,} x {metadata.height:,} pixels, {metadata.n_bytes:,} bytes",
        "EXIF": exif,
        "software": metadata.software or "none",
        "Content Credentials (C2PA)": credentials,
        "declared as AI-generated": "; ".join(metadata.generator_hints) or "no",
    }
    cells = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows.items())
    note = "Metadata can be removed or forged, and the models do not see it. Most files on the web have none."
    return f'<table class="rf-facts"><caption>File metadata</caption>{cells}</table><p class="rf-note">{note}</p>'
