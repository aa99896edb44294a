"""What the page says of a picture: the verdict, what its probability means, and the warnings that are earned."""

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from realfake_hf.data.metadata import FileMetadata
from realfake_hf.metrics.operating_point import OperatingPoint
from realfake_space.model_process import Judged, ModelFacts

MEASURED: Final = Path(__file__).resolve().parents[1] / "measured.json"
SURE: Final = {"FAKE": "Likely AI-generated", "REAL": "Likely real"}
UNSURE: Final = {"FAKE": "Unsure, leaning to AI-generated", "REAL": "Unsure, leaning to real"}
_MUCH: Final = 4  # times as wide or high as what the model sees

Plain = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is said of one picture by one model.

    Attributes:
        model: its name.
        verdict: in words.
        label: REAL or FAKE, by the model's threshold.
        p_fake: the model's probability, in [0, 1].
        decided: whether the probability lies outside the model's unsure band; None without a band.
        meaning: what the probability means on the pictures it was measured on.
        warnings: that are earned by this picture.
    """

    model: str
    verdict: str
    label: str
    p_fake: float
    decided: bool | None
    meaning: str
    warnings: tuple[str, ...]

    def to_dict(self) -> Plain:
        """The answer as plain JSON."""
        return {**asdict(self), "warnings": list(self.warnings)}


def read_measured(file: Path = MEASURED) -> Mapping[str, Plain]:
    """Read what was measured of models, by the digest of their weights."""
    found: Mapping[str, Plain] = json.loads(file.read_text(encoding="utf-8"))["models"]
    return found


def limits(measured: Mapping[str, Plain]) -> str:
    """Say of all models of the folder how often their sure verdicts were wrong elsewhere."""
    ends = [end for one in measured.values() for end in one["wrong_elsewhere"]]
    return (
        f"Where they were sure, the measured models were wrong on {min(ends):.0%} to {max(ends):.0%} of the pictures "
        "of other data sets than their own."
    )


def answer(name: str, model: ModelFacts, judged: Judged, measured: Mapping[str, Plain]) -> Answer:
    """Put what a model of this name found of an upload into words."""
    verdict = judged.verdict
    words = UNSURE if verdict.is_sure is False else SURE
    found = measured.get(model.digest)
    return Answer(
        model=name,
        verdict=words[verdict.label],
        label=verdict.label,
        p_fake=round(verdict.p_fake, 6),
        decided=verdict.is_sure,
        meaning=_meaning(verdict.p_fake, found),
        warnings=tuple(_warnings(model, judged, found)),
    )


def _meaning(p_fake: float, found: Plain | None) -> str:
    if found is None:
        return "Nothing was measured of this model here: its probability may mean anything."
    row = next(one for one in found["bins"] if p_fake < one["high"] or one is found["bins"][-1])
    home = f"Of {row['n']:,} test pictures of {found['home'].upper()} with a probability from {row['low']:.2f} to "
    return f"{home}{row['high']:.2f}, {row['share_fake']:.1%} were AI-generated. {found['elsewhere']}"


def _warnings(model: ModelFacts, judged: Judged, found: Plain | None) -> Iterator[str]:
    if judged.verdict.is_far:
        yield "The model sees this picture far from all that it learnt from: its probability means little here."
    (own_width, own_height), (width, height) = judged.size, model.side
    if own_width >= _MUCH * width or own_height >= _MUCH * height:
        share = width * height / (own_width * own_height)
        yield (
            f"The model sees {width} x {height} pixels of your {own_width:,} x {own_height:,}, "
            f"{_per_cent(share)} of them: most of what detectors look for is gone before it looks."
        )
    elif own_width < width or own_height < height:
        yield f"The picture is smaller than the {width} x {height} pixels that the model sees; it was enlarged."
    if abs(own_width * height - own_height * width) > 0.1 * own_height * width:
        yield "The picture is not of the model's shape: its sides were squeezed."
    if found and judged.claims.format != found["format"]:
        yield f"The file is {judged.claims.format}; the model learnt from {found['format']} files alone."


def _per_cent(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= 0.0001 else "less than 0.01 %"  # noqa: PLR2004


def card(found: Answer, point: OperatingPoint) -> str:
    """The answer as HTML: words, a scale with threshold and band, meaning, warnings."""
    kind = "unsure" if found.decided is False else found.label.lower()
    band = ""
    if point.band and point.band.low < point.band.high:
        left, width = 100 * point.band.low, 100 * (point.band.high - point.band.low)
        band = f'<span class="rf-band" style="left:{left:.1f}%;width:{width:.1f}%"></span>'
    scale = (
        f'<div class="rf-scale" role="img" aria-label="probability of AI-generated: {found.p_fake:.3f}, threshold '
        f'{point.threshold:.3f}">{band}<span class="rf-threshold" style="left:{100 * point.threshold:.1f}%"></span>'
        f'<span class="rf-mark" style="left:{100 * found.p_fake:.1f}%"></span></div>'
        '<div class="rf-ends"><span>real</span><span>AI-generated</span></div>'
    )
    warnings = "".join(f"<li>{html.escape(one)}</li>" for one in found.warnings)
    return (
        f'<div class="rf-card rf-{kind}" role="status"><p class="rf-model">{html.escape(found.model)}</p>'
        f'<p class="rf-verdict">{html.escape(found.verdict)}</p>'
        f'<p class="rf-p">probability of AI-generated: <strong>{found.p_fake:.3f}</strong></p>{scale}'
        f'<p class="rf-meaning">{html.escape(found.meaning)}</p>'
        + (f'<ul class="rf-warnings" aria-label="warnings">{warnings}</ul>' if warnings else "")
        + "</div>"
    )


def refusal(words: str) -> str:
    """A sentence in place of an answer, as HTML."""
    return f'<div class="rf-card rf-refused" role="alert"><p>{html.escape(words)}</p></div>'


def facts(claims: FileMetadata) -> str:
    """The facts of a file as HTML."""
    frames = f", {claims.frames} frames, the first one is judged" if claims.frames > 1 else ""
    credentials = "present, signatures not checked" if claims.has_content_credentials else "none"
    rows = [
        ("format", f"{claims.format}, {claims.mode}" + frames),
        ("size", f"{claims.width:,} x {claims.height:,} pixels, {claims.n_bytes:,} bytes"),
        ("EXIF", "present" + (f": {claims.camera}" if claims.camera else "") if claims.has_exif else "none"),
        ("software", claims.software or "none named"),
        ("Content Credentials (C2PA)", credentials),
        ("says that it is generated", "; ".join(claims.generator_hints) or "no"),
    ]  # fmt: skip
    cells = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
    note = "All of this can be removed or forged, and the models see none of it. Most files on the web carry nothing."
    table = f'<table class="rf-facts"><caption>What the file says of itself</caption>{cells}</table>'
    return f'{table}<p class="rf-note">{note}</p>'


TABLE_HEAD: Final = ("file", "model", "verdict", "p_fake", "decided", "warnings")


def table_row(name: str, found: Answer) -> list[str]:
    """A row below `TABLE_HEAD`."""
    decided = {True: "yes", False: "no", None: ""}[found.decided]
    return [name, found.model, found.verdict, f"{found.p_fake:.6f}", decided, " ".join(found.warnings)]


def refused_row(name: str, model: str, words: str) -> list[str]:
    """A row below `TABLE_HEAD` of a file that gets no verdict."""
    return [name, model, words, "", "", ""]
