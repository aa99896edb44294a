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
from realfake_hf.pages.page import GalleryImage, GalleryItem, Pixels, Section
from realfake_hf.pages.page import write_page as write_html

INTRODUCTION: Final = (
    "A map colours the cells of an image by how much a method attributes to them. It is a claim about a model, not "
    "proof of what the model uses; the tests below compare the claim with controls. Numbers in brackets are 95 % "
    "bootstrap intervals over images. The images were drawn evenly from {strata} groups of label, content and "
    "verdict, and are weighted so that means are those of the whole split."
)
GALLERY_TEXT: Final = (
    "Each image beside the maps of every model and method. Bright cells are the highest of their own map and dark "
    "cells the lowest, so that colours compare places and not strengths; the image lies below in grey."
)
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
    data = study["data"]
    sample = data["sample"]
    gallery_section = Section("gallery", "Images", [GALLERY_TEXT], gallery=_grouped(gallery))
    return write_html(
        file,
        title="Where real-or-fake detectors look",
        subtitle=f"Do the maps that explain two detectors agree, are they faithful, and is what they suggest true? "
        f"Measured on {sample['n']:,} images of {data['source']}'s {data['split']} split ({sample['n_real']:,} real, "
        f"{sample['n_fake']:,} fake).",
        findings=findings(study),
        introduction=INTRODUCTION.format(strata=sample["strata"]),
        sections=[
            *sections(study),
            *([gallery_section] if gallery else []),
            Section("passport", "Settings and environment", tables=passport_tables(study)),
        ],
    )


def _grouped(gallery: Sequence[GalleryPicture]) -> dict[str, list[GalleryItem]]:
    """Group images by which models are wrong, those that all models get right first."""
    groups: dict[str, list[GalleryItem]] = {}
    for picture in sorted(gallery, key=lambda one: len(one.wrong)):
        groups.setdefault(picture.group, []).append(_item(picture))
    return groups


def _item(picture: GalleryPicture) -> GalleryItem:
    title = f"{picture.content}, truly {picture.truth}"
    images = [GalleryImage(picture.picture, "the image", f"The image: {title}")]
    for heat in picture.maps:
        name = f"{model_name(heat.model)} {method_name(heat.method)}"
        caption = f"{name}: empty map" if heat.is_empty else name
        images.append(GalleryImage(heat.overlay, caption, f"{name} over the image"))
    verdicts = ". ".join(_verdict(picture, model) for model in picture.p_fake)
    return GalleryItem(title, f"{verdicts}.", images)


def _verdict(picture: GalleryPicture, model: str) -> str:
    said = Verdict.of(picture.p_fake[model])
    judged = "wrong" if model in picture.wrong else "right"
    shown = f"{said.p_fake:.3f}"
    if said.confidence >= NEARLY_CERTAIN:
        shown = "> 0.999" if said.label == "FAKE" else "< 0.001"
    return f"{model_name(model)}: {said.label}, p(fake) {shown}, {judged}"
