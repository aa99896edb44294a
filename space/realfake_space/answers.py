"""Put predictions into words and HTML: the verdict, what its probability means, warnings, and file metadata."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from realfake_hf.data.metadata import FileMetadata
from realfake_hf.data.provenance import Evidence
from realfake_hf.labels import probability_text
from realfake_hf.metrics.operating_point import OperatingPoint
from realfake_hf.wording import verdict_words, warnings_of
from realfake_space.worker import ModelFacts, Prediction

MEASURED: Final = Path(__file__).resolve().parents[1] / "measured.json"
HOMES: Final = {"wild": "the web", "cifake": "CIFAKE"}  # where the test images come from, by the data of the training
COLUMNS: Final = ("file", "model", "verdict", "p_fake", "decided", "warnings")  # of the table of several images

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
        verdict=verdict_words(verdict),
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
        f"{row['share_fake']:.1%} of the {row['n']:,} test images of {HOMES[evaluation['home']]} with a probability "
        f"from {row['low']:.2f} to {row['high']:.2f} were AI-generated. {evaluation['elsewhere']}"
    )


def _warnings(model: ModelFacts, prediction: Prediction, evaluation: Plain | None) -> list[str]:
    return warnings_of(
        prediction.verdict, framing=model.framing, size=prediction.size, file_format=prediction.metadata.format,
        trained_format=evaluation["format"] if evaluation else None,
    )  # fmt: skip


def card(item: Answer, point: OperatingPoint, purpose: str = "") -> str:
    """Render an answer as HTML, in five parts that line up with those of the cards beside it.

    They are the model, the verdict with its probability, a scale with threshold and unsure band, what the probability
    means, and the warnings.
    """
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
    use = html.escape(purpose and f", for {purpose}")
    verdict = f'<p class="rf-verdict">{html.escape(item.verdict)}</p>'
    probability = html.escape(probability_text(item.p_fake))
    parts = (
        f'<p class="rf-model"><strong>{html.escape(item.model)}</strong>{use}</p>',
        f'{verdict}<p class="rf-p">probability of AI-generated: <strong>{probability}</strong></p>',
        scale,
        (f'<p class="rf-reason">{html.escape(item.reason)}</p>' if item.reason else "")
        + f'<p class="rf-meaning">{html.escape(item.meaning)}</p>',
        f'<ul class="rf-warnings" aria-label="warnings">{warnings}</ul>' if warnings else "",
    )
    body = "".join(f"<div>{part}</div>" for part in parts)
    return f'<div class="rf-card rf-{tone(item)}" role="status">{body}</div>'


def tone(item: Answer) -> str:
    """Return the kind of an answer, by which it is coloured: fake, real or unsure."""
    return "unsure" if item.decided is False else item.label.lower()


def rejection(message: str) -> str:
    """Render a message in place of an answer as HTML."""
    return f'<div class="rf-card rf-refused" role="alert"><p>{html.escape(message)}</p></div>'


def metadata_table(metadata: FileMetadata, evidence: Sequence[Evidence] | None) -> str:
    """Render the metadata of a file as HTML, and what it says of itself; None if that could not be read."""
    frames = ", several frames, of which the first is used" if metadata.has_more_frames else ""
    rows = [
        _row("format", f"{metadata.format}, {metadata.mode}{frames}"),
        _row("size", f"{metadata.width:,} x {metadata.height:,} pixels, {metadata.n_bytes:,} bytes"),
        *(_row(item.kind, item.text, kind=item.status.replace(" ", "-"), link=item.link) for item in evidence or ()),
    ]
    if not evidence:
        nothing = "no credentials, no camera, no software, no generator"
        rows.append(_row("says of itself", "it could not be read" if evidence is None else nothing))
    note = (
        "All of this can be removed or forged, except what is verified, and the models do not see it. Most files on "
        "the web say nothing."
    )
    table = f'<table class="rf-facts"><caption>File metadata</caption>{"".join(rows)}</table>'
    return f'{table}<p class="rf-note">{note}</p>'


def _row(name: str, text: str, *, kind: str = "fact", link: str | None = None) -> str:
    more = ""
    if link:
        more = f' <a href="{html.escape(link)}" target="_blank" rel="noopener noreferrer">{urlsplit(link).netloc}</a>'
    return f'<tr class="rf-{kind}"><th>{html.escape(name)}</th><td>{html.escape(text)}{more}</td></tr>'
