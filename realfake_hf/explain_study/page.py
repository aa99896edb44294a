"""The explanation study as one page that needs nothing else: its findings, figures, tables and galleries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from realfake_hf.explain_study.findings import findings
from realfake_hf.explain_study.names import Study, listed, method_name, model_name
from realfake_hf.explain_study.sections import sections
from realfake_hf.explain_study.tables import passport_tables
from realfake_hf.labels import LABEL_NAMES, Verdict
from realfake_hf.pages.page import Pixels, render_page

NEARLY_CERTAIN: Final = 0.9995  # what would round to a certainty


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


def write_page(study: Study, gallery: Sequence[GalleryPicture], file: Path) -> Path:
    """Write the page of a study and give its path.

    Args:
        study: what `results/explanation_study.json` holds; parts beside `agreement` may be missing.
        gallery: pictures with their maps; none leaves the gallery out.
        file: an HTML file; its folder is made.
    """
    return render_page(
        "study_page.html.j2",
        file,
        sections(study),
        sample=study["data"]["sample"],
        source=study["data"]["source"],
        split=study["data"]["split"],
        findings=findings(study),
        gallery=_grouped(gallery),
        passport=passport_tables(study),
        verdict=_verdict,
        model_name=model_name,
        method_name=method_name,
    )


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
