"""Publish a study: its numbers as JSON, its main figure, its page."""

from realfake_hf.attribution.overlay import overlay
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.explain_study.findings import findings
from realfake_hf.explain_study.maps import is_empty
from realfake_hf.explain_study.page import GalleryMap, GalleryPicture, write_page
from realfake_hf.explain_study.page_figures import controls_figure
from realfake_hf.explain_study.run import GalleryImage, Study
from realfake_hf.figures import save_figure
from realfake_hf.store import write_json


def publish_study(study: Study, arguments: StudyArguments) -> list[str]:
    """Write what a study found where its arguments say; give the findings and the places in words.

    Args:
        study: the parts that were asked for; without agreement there is neither figure nor page.
        arguments: of the study.
    """
    write_json(arguments.results_file, study.results)
    if "agreement" not in study.results:
        return [f"numbers: {arguments.results_file}"]
    gallery = [to_gallery(shown) for shown in study.gallery]
    page = write_page(study.results, gallery, arguments.page_file)
    figure = save_figure(controls_figure(study.results), arguments.figure_file)
    return [*findings(study.results), f"numbers: {arguments.results_file}\npage: {page}\nfigure: {figure}"]


def to_gallery(shown: GalleryImage) -> GalleryPicture:
    """Lay the maps over their picture."""
    maps = [
        GalleryMap(model, method, overlay(shown.image, heat), is_empty=bool(is_empty(heat[None])[0]))
        for (model, method), heat in shown.maps.items()
    ]
    return GalleryPicture(shown.image, is_fake=shown.is_fake, content=shown.content, p_fake=shown.p_fake, maps=maps)
