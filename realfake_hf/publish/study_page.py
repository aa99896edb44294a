"""The explanation study as one page that needs nothing else: its findings, figures, tables and galleries."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.figures import darken
from realfake_hf.labels import LABEL_NAMES, Verdict
from realfake_hf.publish.study_findings import findings
from realfake_hf.publish.study_sections import Shown, sections
from realfake_hf.publish.study_tables import passport_tables
from realfake_hf.publish.study_words import Study, listed, method_name, model_name

DPI: Final = 150
NEARLY_CERTAIN: Final = 0.9995  # what would round to a certainty
PALETTE: Final = 256  # colours of a figure's PNG, a third of the size of one with all
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class GalleryMap:
    """A map of a gallery's picture.

    Attributes:
        model: its name in the study.
        method: likewise.
        overlay: the map over the picture, (height, width, 3) uint8 [0, 255].
        is_empty: the map is the same everywhere, which is then said in words.
    """

    model: str
    method: str
    overlay: Pixels
    is_empty: bool = False


@dataclass(frozen=True, eq=False)
class GalleryPicture:
    """A picture of the gallery.

    Attributes:
        picture: (height, width, 3) uint8 [0, 255].
        is_fake: the truth.
        content: what is on it.
        p_fake: by the model's name in the study, what it says, in [0, 1].
        maps: in the order in which they are shown.
    """

    picture: Pixels
    is_fake: bool
    content: str
    p_fake: dict[str, float]
    maps: Sequence[GalleryMap]

    @property
    def truth(self) -> str:
        """REAL or FAKE."""
        return LABEL_NAMES[self.is_fake]

    @property
    def wrong(self) -> list[str]:
        """The names of the models that are wrong."""
        return [name for name, p_fake in self.p_fake.items() if Verdict.of(p_fake).label != self.truth]

    @property
    def group(self) -> str:
        """Who is wrong."""
        if not self.wrong:
            return "All models are right"
        if len(self.wrong) == len(self.p_fake):
            return "All models are wrong"
        return f"Wrong: {listed([model_name(name) for name in self.wrong])}"


@dataclass(frozen=True)
class _Drawn:
    """A figure as the page shows it."""

    shown: Shown
    light: str
    dark: str
    width: int
    height: int


def write_page(study: Study, gallery: Sequence[GalleryPicture], file: Path) -> Path:
    """Write the page of a study and give its path.

    Args:
        study: what `results/explanation_study.json` holds; parts beside `agreement` may be missing.
        gallery: pictures with their maps; none leaves the gallery out.
        file: an HTML file; its folder is made.
    """
    parts = sections(study)
    environment = Environment(
        loader=PackageLoader("realfake_hf", "publish"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("study_page.html.j2").render(
        sample=study["data"]["sample"],
        source=study["data"]["source"],
        split=study["data"]["split"],
        findings=findings(study),
        sections=[(part, [_draw(shown) for shown in part.figures]) for part in parts],
        gallery=_grouped(gallery),
        passport=passport_tables(study),
        png=_png,
        verdict=_verdict,
        model_name=model_name,
        method_name=method_name,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return file


def _draw(shown: Shown) -> _Drawn:
    figure = shown.draw()
    figure.set_dpi(DPI)
    light = _pixels(figure)
    figure.set_layout_engine("none")  # found once, it holds for both pictures
    return _Drawn(shown, _few_colors(light), _few_colors(_pixels(darken(figure))), *light.shape[1::-1])


def _pixels(figure: Figure) -> Pixels:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _few_colors(pixels: Pixels) -> str:
    return _data_uri(Image.fromarray(pixels).quantize(PALETTE, dither=Image.Dither.NONE))


def _png(picture: Pixels) -> str:
    return _data_uri(Image.fromarray(picture))


def _data_uri(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, format="png")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def _grouped(gallery: Sequence[GalleryPicture]) -> dict[str, list[GalleryPicture]]:
    """Group pictures by who is wrong, those that all models get right first."""
    groups: dict[str, list[GalleryPicture]] = {}
    for picture in sorted(gallery, key=lambda one: len(one.wrong)):
        groups.setdefault(picture.group, []).append(picture)
    return groups


def _verdict(picture: GalleryPicture, model: str) -> str:
    said = Verdict.of(picture.p_fake[model])
    judged = "wrong" if model in picture.wrong else "right"
    shown = f"{said.p_fake:.3f}"
    if said.confidence >= NEARLY_CERTAIN:
        shown = "> 0.999" if said.label == "FAKE" else "< 0.001"
    return f"{model_name(model)}: {said.label}, p(fake) {shown}, {judged}"
