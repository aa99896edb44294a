"""Judge image files one after another: verdict, warnings, and what each file says of itself."""

import csv
import io
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from PIL import Image

from realfake_hf.check.models import LoadedModel
from realfake_hf.data.decoding import UnreadableImageError, decode_image
from realfake_hf.data.files import printable, read_file
from realfake_hf.data.provenance import Evidence, read_provenance
from realfake_hf.labels import NotFiniteError, Verdict
from realfake_hf.metrics.operating_point import Band
from realfake_hf.wording import band_words, verdict_words, warnings_of

COLUMNS: Final = (
    "file", "words", "label", "p_fake", "is_sure", "is_far", "reasons", "warnings", "file_says", "error",
)  # fmt: skip
_AHEAD: Final = 2  # images that are decoded while another one is judged
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins a formula


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """The outcome of one file.

    Attributes:
        file: its name, as it was found; characters that cannot be printed are escaped.
        verdict: None if the file cannot be read.
        band: the abstention band of the model.
        warnings: sentences.
        evidence: what the file says of itself.
        error: why there is no verdict; empty if there is one.
    """

    file: str
    verdict: Verdict | None = None
    band: Band | None = None
    warnings: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    error: str = ""

    @property
    def headline(self) -> str:
        """The verdict in words, or that there is none."""
        return verdict_words(self.verdict) if self.verdict else "No verdict"

    @property
    def why(self) -> str:
        """Why the verdict is unsure, or why there is none; empty if it is sure."""
        return self.verdict.why if self.verdict else self.error

    @property
    def words(self) -> str:
        """The headline and why, in a sentence."""
        return f"{': '.join(filter(None, (self.headline, self.why)))}{'.' if self.verdict else ''}"

    @property
    def band_words(self) -> str:
        """The probabilities between which the model is unsure; empty if there are none."""
        return band_words(self.band)

    def to_text(self) -> str:
        """Return the line of the image, and below it a line for each warning and each thing that the file says."""
        lines = [f"{self.file}: {self.words}"]
        if self.verdict:
            band = f" ({self.band_words})" if self.band_words else ""
            lines[0] += f" Probability of AI-generated {self.verdict.p_fake_text}{band}."
        lines += [f"  {warning}" for warning in self.warnings]
        lines += [f"  {each.kind}: {each.text}{f' [{each.link}]' if each.link else ''}" for each in self.evidence]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the values of `COLUMNS` as plain JSON; those of a verdict are None without one."""
        verdict = self.verdict
        says = [
            {"kind": each.kind, "text": each.text, "status": each.status, "link": each.link} for each in self.evidence
        ]
        return {
            "file": self.file,
            "words": self.words,
            "label": verdict and verdict.label,
            "p_fake": verdict and verdict.p_fake,
            "is_sure": verdict and verdict.is_sure,
            "is_far": verdict and verdict.is_far,
            "reasons": list(verdict.reasons) if verdict else [],
            "warnings": list(self.warnings),
            "file_says": says,
            "error": self.error or None,
        }


def check_files(
    files: Sequence[Path], model: LoadedModel, *, trust: Path | None = None
) -> Iterator[tuple[CheckedImage, Image.Image | None]]:
    """Yield the outcome of each file, in order, and its upright RGB image, None if it cannot be read.

    The next files are read while one is judged. `trust` is the trust list of `read_provenance`.
    """
    for file, opened in _read_ahead(files, trust):
        name = printable(file)
        try:
            image, evidence = opened.result()
            [verdict] = model.judge.predict([image])
        except (NotFiniteError, UnreadableImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            yield CheckedImage(file=name, error=reason), None
            continue
        warnings = tuple(warnings_of(verdict, framing=model.framing, size=image.size))
        checked = CheckedImage(
            file=name, verdict=verdict, band=model.judge.point.band, warnings=warnings, evidence=evidence
        )
        yield checked, image


def _read_ahead(
    files: Iterable[Path], trust: Path | None
) -> Iterator[tuple[Path, "Future[tuple[Image.Image, tuple[Evidence, ...]]]"]]:
    waiting: deque[tuple[Path, Future[tuple[Image.Image, tuple[Evidence, ...]]]]] = deque()
    rest = iter(files)
    with ThreadPoolExecutor(1) as pool:
        try:
            for file in chain(islice(rest, _AHEAD), rest):
                waiting.append((file, pool.submit(_open, file, trust)))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(cancel_futures=True)


def _open(file: Path, trust: Path | None) -> tuple[Image.Image, tuple[Evidence, ...]]:
    data = read_file(file)
    return decode_image(data), read_provenance(data, trust=trust)


def csv_line(cells: Iterable[object]) -> str:
    """Return a line of CSV, with its end; a text that a spreadsheet would compute begins with an apostrophe."""
    line = io.StringIO(newline="")
    csv.writer(line).writerow([_cell(cell) for cell in cells])
    return line.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, list):
        value = "; ".join(item if isinstance(item, str) else f"{item['kind']}: {item['text']}" for item in value)
    if isinstance(value, bool):
        value = str(value).lower()
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def json_line(checked: CheckedImage) -> str:
    """Return the outcome as one line of JSON, with its end."""
    return json.dumps(checked.to_dict(), ensure_ascii=False) + "\n"
