"""The report of the explanation study: its results file and table, its main figure, and a page with everything."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from realfake_hf.attribution.methods import method_name
from realfake_hf.attribution.overlay import overlay
from realfake_hf.explain_study import figures, tables
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.explain_study.faithfulness_section import faithfulness_section
from realfake_hf.explain_study.figures import page_figure
from realfake_hf.explain_study.findings import findings
from realfake_hf.explain_study.grid_game_section import grid_section
from realfake_hf.explain_study.maps import is_empty
from realfake_hf.explain_study.names import MEASURE, MEASURE_NAMES, Results, map_name, model_name
from realfake_hf.explain_study.patching_section import patching_section
from realfake_hf.explain_study.run import ExplainedImage
from realfake_hf.explain_study.sinks_section import sinks_section
from realfake_hf.figures.style import save_figure
from realfake_hf.labels import LABEL_NAMES, Verdict
from realfake_hf.pages.page import GalleryImage, GalleryItem, Section, write_page
from realfake_hf.store import write_results

INTRODUCTION: Final = (
    "A map colours the cells of an image by the evidence that a method attributes to them. It is a claim about a "
    "model, not proof of what the model uses; the tests below compare it with controls. Numbers in brackets are 95% "
    "bootstrap intervals over images, and differences have p-values that are corrected for all comparisons of their "
    "kind in a part (Holm); a flag says what is significant at 5%. The images are balanced between {strata} groups of "
    "label, content and correctness, and weighted so that means are estimates for the whole split."
)
GALLERY: Final = (
    "Each image is shown beside the maps of every model and method. Bright cells are the highest of their own map and "
    "dark cells the lowest, so that colours compare positions and not strengths; the image lies below in grey."
)
AGREEMENT: Final = (
    "All maps are resampled to a grid of {0} x {1} cells. IoU of the top 20% is the share of cells in the highest "
    "fifths of both maps among the cells in either; Spearman compares the whole ranking. An image for which a map is "
    "empty has no agreement and is counted as undefined."
)
CONTROLS: Final = (
    "Each row is a pair of maps; values to the right mean more agreement. Only agreement beyond that of other images "
    "of the same label and content is about the image, and only agreement beyond that of random weights is about what "
    "was learned. Different models cannot be expected to agree more than a model agrees with its twin from another "
    "training seed."
)
MATRIX: Final = "Each number is the mean of one pair of maps. Lines separate the models."
CASCADE: Final = (
    "Weights become random from the classifier downwards (Adebayo et al., 2018). A map that stays near 1 shows the "
    "image or the architecture rather than what was learned. Rollout and last attention do not read the classifier "
    "and cannot change at the first stage."
)
HITS: Final = (
    "A quadrant of an image of the other label is pasted in. A hit is a map whose highest cell lies in that quadrant; "
    "chance is one in four. In the control, the quadrant is of an image of the same label: only its seam can attract "
    "a map, so a method is credited with the difference."
)
OCCLUSION: Final = (
    "The regions have equal areas; a square in a corner is compact like the centre, and from half of the area on it "
    "covers a part of the centre. The centre is not the entity. Hiding can also push all predictions to one label, "
    "which lowers accuracy but not ROC AUC."
)
ENTITY: Final = (
    "The hidden background is as large as the entity and as far from it as possible. With all but the entity hidden, "
    "only the entity informs the model; with everything hidden, only the fill does."
)


def publish_study(results: Results, gallery: Sequence[ExplainedImage], arguments: StudyArguments) -> list[str]:
    """Write the results, their table, the page and the main figure; return the findings and the paths as text.

    The page and the figure are written only if the agreement was measured.
    """
    write_results(arguments.results_file, results, to_markdown(results))
    if "agreement" not in results:
        return [*findings(results), f"results: {arguments.results_file}"]
    page = write_study_page(results, gallery, arguments.page_file)
    figure = save_figure(figures.agreement_and_controls(results), arguments.figure_file)
    return [*findings(results), f"results: {arguments.results_file}\npage: {page}\nfigure: {figure}"]


def to_markdown(results: Results) -> str:
    """Render the main tables of a study as Markdown; the page also contains the folded ones."""
    blocks = []
    for section in sections(results):
        blocks.append(f"### {section.title}")
        blocks += [table.to_markdown() for table in section.tables if not table.folded]
    return "\n\n".join(blocks)


def write_study_page(results: Results, gallery: Sequence[ExplainedImage], file: Path) -> Path:
    """Write the page of a study and return its path; parts other than `agreement` may be missing."""
    data = results["data"]
    sample = data["sample"]
    more = [Section("gallery", "Images", [GALLERY], gallery=_by_errors(gallery))] if gallery else []
    return write_page(
        file,
        title="Where real-or-fake detectors look",
        subtitle=f"Do the maps that explain the detectors agree, and are they faithful? Measured on {sample['n']:,} "
        f"images of {data['source']}, split {data['split']} ({sample['n_real']:,} real, {sample['n_fake']:,} fake).",
        findings=findings(results),
        introduction=INTRODUCTION.format(strata=sample["strata"]),
        sections=[
            *sections(results),
            *more,
            Section("passport", "Settings and environment", tables=tables.environment_tables(results)),
        ],
    )


def sections(results: Results) -> list[Section]:
    """Return the section of each part of a study, in the order of the page."""
    return [make(results) for part, make in _SECTIONS.items() if part in results]


def _agreement_section(results: Results) -> Section:
    n = f"n = {results['data']['sample']['n']:,} images"
    caption = f"Agreement of the key pairs beside their controls: {MEASURE_NAMES[MEASURE]}, {n}."
    shown = [page_figure(partial(figures.agreement_and_controls, results), caption, CONTROLS)]
    for measure in (MEASURE, "spearman"):
        caption = f"Agreement of every pair of maps: {MEASURE_NAMES[measure]}, means over {n}."
        shown.append(page_figure(partial(figures.agreement_matrix, results, measure), caption, MATRIX))
    text = AGREEMENT.format(*results["grid"])
    return Section("agreement", "Do the maps agree?", [text], shown, tables.agreement_tables(results))


def _sanity_section(results: Results) -> Section:
    n = results["sanity"]["n"]
    caption = f"Similarity to the original maps during randomisation: n = {n:,} images, with 95% intervals."
    shown = [page_figure(partial(figures.weight_randomization, results), caption, CASCADE)]
    text = "A map that looks the same for an untrained model cannot show what training found."
    return Section("sanity", "Do the maps depend on what was learned?", [text], shown, tables.sanity_tables(results))


def _planted_section(results: Results) -> Section:
    caption = "Hits with 95% intervals; n is given below each group."
    shown = [page_figure(partial(figures.planted_hits, results), caption, HITS)]
    methods = ", ".join(map(method_name, results["planted"]["class_methods"]))
    text = f"Maps that depend on the explained label: {methods}. The other methods have one map for both labels."
    return Section("planted", "Do the maps find planted evidence?", [text], shown, tables.planted_tables(results))


def _occlusion_section(results: Results) -> Section:
    n = f"n = {results['causal']['n']:,} images, with 95% intervals"
    shown = [
        page_figure(
            partial(figures.hidden_regions, results, measure),
            f"{name} with the centre, the rim or a corner hidden: {n}.",
            OCCLUSION,
        )
        for measure, name in (("accuracy", "Accuracy"), ("roc_auc", "ROC AUC"))
    ]
    return Section("causal", "Is the evidence in the centre?", [], shown, tables.occlusion_tables(results))


def _entity_section(results: Results) -> Section:
    part = results["entity"]
    n = f"n = {part['n']:,} images ({part['n_real']:,} real, {part['n_fake']:,} fake), with 95% intervals"
    shown = [
        page_figure(partial(figures.hidden_entity, results), f"ROC AUC with entity or background hidden: {n}.", ENTITY)
    ]
    text = (
        "Bird and Lotfi (2024) conclude that the evidence lies in the background and not in the entity. The masks are "
        "of images on which two unsupervised segmenters agree; a person struck out wrong ones."
    )
    return Section("entity", "Is the evidence in the entity?", [text], shown, tables.entity_tables(results))


_SECTIONS: Final[Mapping[str, Callable[[Results], Section]]] = {
    "agreement": _agreement_section,
    "faithfulness": faithfulness_section,
    "sanity": _sanity_section,
    "planted": _planted_section,
    "grids": grid_section,
    "causal": _occlusion_section,
    "entity": _entity_section,
    "patching": patching_section,
    "sinks": sinks_section,
}


def _by_errors(gallery: Iterable[ExplainedImage]) -> dict[str, list[GalleryItem]]:
    """Group images by the models that misclassify them, fewest models first."""
    groups: dict[tuple[str, ...], list[GalleryItem]] = {}
    for shown in gallery:
        groups.setdefault(tuple(map(model_name, shown.wrong)), []).append(_gallery_item(shown))
    titles = {
        names: f"Misclassified by {' and '.join(names)}" if names else "Classified correctly" for names in groups
    }
    return {titles[names]: groups[names] for names in sorted(groups, key=len)}


def _gallery_item(shown: ExplainedImage) -> GalleryItem:
    title = f"{shown.content}, truly {LABEL_NAMES[shown.is_fake]}"
    images = [GalleryImage(shown.image, "the image", f"The image: {title}")]
    for (model, method), heat in shown.maps.items():
        name = map_name(model, method)
        caption = f"{name}: empty map" if is_empty(heat[None])[0] else name
        images.append(GalleryImage(overlay(shown.image, heat), caption, f"{name} over the image"))
    verdicts = {model_name(model): Verdict.of(p_fake) for model, p_fake in shown.p_fake.items()}
    text = "; ".join(f"{name}: {verdict.label}, p(fake) {verdict.p_fake_text}" for name, verdict in verdicts.items())
    return GalleryItem(title, text, images)
