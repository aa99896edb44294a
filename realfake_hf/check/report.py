"""One self-contained HTML page of judged images, those that need a look first: for a newsroom."""

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Final, Self

from PIL import Image

from realfake_hf.check.models import LoadedModel
from realfake_hf.check.run import CheckedImage

SIDE: Final = 480  # pixels of the longer side of an image on the page
MAP_NOTE: Final = (
    "Bright: evidence for {target}. A map shows what influenced the model, under the assumptions of its method."
)
CAUTION: Final = (
    "A verdict says how much an image resembles the real and AI-generated images of the model's training. It is no "
    "evidence, least of all against a person. What a file says of itself can be removed, and, unless it is verified, "
    "forged."
)

Explain = Callable[[Image.Image], tuple[Image.Image, str]]  # an image to the overlay of its map, and a note


@dataclass(frozen=True, eq=False)
class Entry:
    """One image of the page, with data URIs of the image and its map; None if there is none."""

    checked: CheckedImage
    size: str = ""
    picture: str | None = None
    map: str | None = None
    note: str = ""

    @classmethod
    def of(cls, checked: CheckedImage, image: Image.Image | None, explain: Explain | None) -> Self:
        """Shrink an image and compute its map."""
        if image is None:
            return cls(checked)
        overlay, note = explain(image) if explain else (None, "")
        return cls(
            checked,
            size=f"{image.width:,} x {image.height:,} pixels",
            picture=_data_uri(image),
            map=None if overlay is None else _data_uri(overlay),
            note=note,
        )

    @property
    def kind(self) -> str:
        """What the entry is counted as: `unreadable`, `contradiction`, `fake`, `unsure` or `real`."""
        if self.checked.verdict is None:
            return "unreadable"
        if self.is_contradicted:
            return "contradiction"
        if self.checked.verdict.is_sure is False:
            return "unsure"
        return self.checked.verdict.label.lower()

    @property
    def is_contradicted(self) -> bool:
        """Whether the model says real, and the file says that generative AI had a part in it."""
        verdict = self.checked.verdict
        return verdict is not None and verdict.label == "REAL" and any(each.names_ai for each in self.checked.evidence)


KINDS: Final = {  # in the order of the page
    "contradiction": "called real, while the file names generative AI",
    "fake": "likely AI-generated",
    "unsure": "unsure",
    "unreadable": "without a verdict",
    "real": "likely real",
}


def explainer(model: LoadedModel) -> Explain | None:
    """Return a function that explains images; None if PyTorch or transformers is not installed."""
    if not all(map(find_spec, ("torch", "transformers", "captum", "matplotlib"))):
        return None
    import numpy as np

    from realfake_hf.detector import Detector

    detector = model.judge if isinstance(model.judge, Detector) else Detector.from_pretrained(model.place, bf16=True)
    method = detector.methods()[0]

    def explain(image: Image.Image) -> tuple[Image.Image, str]:
        [explanation] = detector.explain(image, method=method)
        view = Image.fromarray(detector.view(image))
        view.thumbnail((SIDE, SIDE))
        names = {"FAKE": "AI-generated", "REAL": "real"}
        note = MAP_NOTE.format(target=names[explanation.target]) if explanation.target else MAP_NOTE.split(". ")[1]
        return Image.fromarray(explanation.overlay(np.asarray(view))), note

    return explain


def write_report(entries: Sequence[Entry], file: Path, *, model: str, has_maps: bool) -> None:
    """Write the page, creating its folder; the entries in the order of `KINDS`, the highest probability first."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("realfake_hf", "check"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    counts = Counter(entry.kind for entry in entries)
    page = environment.get_template("report.html.j2").render(
        entries=sorted(entries, key=_order),
        counts={kind: (counts[kind], words) for kind, words in KINDS.items() if counts[kind]},
        n=len(entries),
        model=Path(model).name,
        made=datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
        caution=CAUTION,
        has_maps=has_maps,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")


def _order(entry: Entry) -> tuple[int, float]:
    verdict = entry.checked.verdict
    return list(KINDS).index(entry.kind), -verdict.p_fake if verdict else 0.0


def _data_uri(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"
