"""The layout of the page and its events."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from realfake_hf.attribution.methods import METHODS, method_name
from realfake_space.answers import COLUMNS, limitation
from realfake_space.api import Api
from realfake_space.chart import chart, findings
from realfake_space.components import FilesUpload, ImageUpload, MapImage
from realfake_space.examples import GROUPS, caption, expected_table, read_examples
from realfake_space.gate import Gate
from realfake_space.models import Model
from realfake_space.summary import UPLOAD, note
from realfake_space.uploads import MAX_BYTES

ROOT: Final = Path(__file__).resolve().parents[1]
STRENGTH: Final = 0.6
LOCAL: Final = "http://127.0.0.1:7860"  # the address in code.md
WAITING: Final = 16  # requests of a kind that may wait at once: a file that is slow to read holds up no other
INTRO: Final = """# realfake
Photograph or AI-generated? Small models answer, and show where they looked. **{limitation}
No answer is evidence, least of all against a person.**"""
MAP_NOTE: Final = (
    "A map shows what influenced the model's answer, under the assumptions of its method, from dark (least in this "
    "image) to bright (most). It proves nothing about the image."
)
FONTS: Final = ("Source Sans Pro", "IBM Plex Mono")
WEIGHTS: Final = (400, 700)  # of 600, the version of Gradio has files with a few letters only


def launch_settings(page: gr.Blocks) -> dict[str, Any]:
    """Return the arguments of `launch`: limits, style, and nothing that leaves this machine."""
    return {
        "app_kwargs": {"middleware": [Middleware(Gate, page=page)]},
        "enable_monitoring": False,
        "max_file_size": MAX_BYTES,
        "theme": theme(),
        "mcp_server": find_spec("mcp") is not None,
        "css_paths": Path(__file__).with_name("page.css"),
        "footer_links": ["api", "settings"],
        "ssr_mode": False,
        "run_history": False,
        "state_session_capacity": 1000,  # pages and API calls whose state is kept
        "max_threads": 160,  # they wait for readers and models
    }


def theme() -> gr.themes.Base:
    """Return Gradio's theme with fonts that have all letters in each weight."""
    sans, mono = (gr.themes.utils.fonts.LocalFont(name, WEIGHTS) for name in FONTS)
    return gr.themes.Default(font=[sans, "ui-sans-serif", "sans-serif"], font_mono=[mono, "ui-monospace", "monospace"])


def build(models: Mapping[str, Model]) -> gr.Blocks:
    """Build the page for these models, which need not be loaded yet."""
    api = Api(models)
    with gr.Blocks(title="realfake", analytics_enabled=False) as page:
        gr.Markdown(INTRO.format(limitation=limitation(api.measured)))
        with gr.Tab("One image"):
            _one_image(page, api)
        with gr.Tab("Several images"):
            _several_images(api)
        with gr.Tab("What was measured"):
            gr.HTML(chart(api.measured) + findings(api.measured), elem_id="measured")
            with gr.Accordion("All tables", open=False, elem_id="tables"):
                gr.Markdown(_text("measured.md"), elem_classes="rf-prose")
        with gr.Tab("How it works"):
            gr.Markdown(_text("method.md"), elem_classes="rf-prose")
        with gr.Tab("API"):
            _code(page)
            _endpoints(api)
    page.queue(default_concurrency_limit=1, max_size=256, api_open=False)
    return page  # type: ignore[no-any-return]  # Gradio does not type __enter__


def _text(name: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    return text.split("\n", 1)[1] if text.startswith("<!--") else text


def _code(page: gr.Blocks) -> None:
    """Add the documentation of the endpoints, with the address at which the browser found the page."""
    text = _text("code.md")
    shown = gr.Markdown(text, elem_classes="rf-prose")
    here = "new URL('.', location.href).href.replace(/\\/$/, '')"
    page.load(None, None, shown, js=f"() => {json.dumps(text)}.replaceAll({json.dumps(LOCAL)}, {here})")


def _one_image(page: gr.Blocks, api: Api) -> None:
    names = list(api.models)
    with gr.Row(equal_height=False, elem_id="one"):
        with gr.Column(scale=2, min_width=300, elem_id="left"):
            upload = ImageUpload(
                type="filepath", sources=["upload", "clipboard"], format="png", height=240, buttons=["fullscreen"],
                label="Image: drop, paste or choose", elem_id="picture", alt_text="The uploaded image",
            )  # fmt: skip
            summary = gr.HTML(note(UPLOAD), elem_id="summary")
            with gr.Column(elem_id="controls"):
                _examples(upload)
                shown = gr.CheckboxGroup(names, value=names, label="Models", elem_id="models", visible=len(names) > 1)
                strength = gr.Slider(0, 1, value=STRENGTH, step=0.05, label="Opacity of the maps", elem_id="strength")
        with gr.Column(scale=5, min_width=300, elem_id="right"):
            with gr.Row(elem_id="cards"):
                columns = [_model_column(name) for name in names]
            gr.Markdown(MAP_NOTE, elem_classes="rf-note", elem_id="map-note")
            metadata = gr.HTML(elem_id="facts")
    silent: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    upload.change(api.show_metadata, upload, metadata, **silent)
    shown.change(lambda chosen: [gr.Column(visible=name in chosen) for name in names], shown,
                 [column.whole for column in columns], **silent)  # fmt: skip
    judged = gr.on(
        [upload.change, shown.change], api.show_verdicts, [upload, shown],
        [summary, *(column.verdict for column in columns)], show_progress="hidden", concurrency_id="verdicts",
        concurrency_limit=WAITING * len(names), api_visibility="private",
    )  # fmt: skip
    for name, column in zip(names, columns, strict=True):
        judged.then(**_map_events(api, name, column, upload, strength))
        page.load(partial(_method_choices, api, name), None, column.method, show_progress="hidden", **_own(name))
    with gr.Accordion("Expected answers to the examples", open=False):
        table = gr.Markdown(expected_table(), elem_id="expected")
        button = gr.Button("Check this installation", elem_id="check")

    def check() -> str:
        """Compare the answers of this installation to the examples of the page with the expected ones."""
        return expected_table(api)

    button.click(check, None, table, api_name="check", concurrency_id="check")


def _examples(upload: gr.Image) -> None:
    """Add the examples as buttons with thumbnails, by group; failures carry the true answer."""
    for group, heading in GROUPS.items():
        gr.Markdown(heading, elem_classes="rf-heading")
        with gr.Row(elem_classes=f"rf-examples rf-{group}"):
            for example in read_examples():
                if example.group != group:
                    continue
                path = save_bytes_to_cache(example.file.read_bytes(), example.file.name, get_upload_folder())
                button = gr.Button(caption(example), icon=path, size="sm", min_width=80, elem_classes="rf-example")
                button.click(
                    _returning(path), None, upload, queue=False, show_progress="hidden", api_visibility="private"
                )


def _returning(path: str) -> Callable[[], str]:
    return lambda: path


class _Column(NamedTuple):
    """The components of a model."""

    whole: gr.Column
    verdict: gr.HTML
    method: gr.Dropdown
    map: gr.Image
    legend: gr.HTML


def _model_column(name: str) -> _Column:
    with gr.Column(min_width=200, elem_classes="rf-column") as whole:
        verdict = gr.HTML(elem_id=f"verdict-{name}")
        method = gr.Dropdown(
            [(method_name(method), method) for method in METHODS], label=f"Map of {name}", elem_id=f"method-{name}"
        )
        shown = MapImage(
            label=f"Where {name} looked", interactive=False, format="png", buttons=["download", "fullscreen"],
            show_label=False, elem_id=f"map-{name}",
            alt_text=f"The image under a map of where {name} looked; brighter means more.",
        )  # fmt: skip
        legend = gr.HTML(elem_id=f"legend-{name}")
    return _Column(whole, verdict, method, shown, legend)


def _map_events(api: Api, name: str, column: _Column, upload: gr.Image, strength: gr.Slider) -> dict[str, Any]:
    """Show the map of a model again when its method or opacity changes; return how to show it after the verdicts."""
    event: dict[str, Any] = {
        "fn": partial(api.show_map, name), "inputs": [upload, column.method, strength],
        "outputs": [column.map, column.legend], "show_progress": "minimal", **_own(name),
    }  # fmt: skip
    column.method.input(**event)
    strength.release(**{**event, "show_progress": "hidden"})
    return event


def _own(name: str) -> dict[str, Any]:
    """Return the settings of the events of a model, which wait for each other only."""
    return {"concurrency_id": name, "concurrency_limit": WAITING, "api_visibility": "private"}


def _method_choices(api: Api, name: str) -> gr.Dropdown:
    methods = api.models[name].facts.methods
    return gr.Dropdown([(method_name(method), method) for method in methods], value=methods[0])


def _several_images(api: Api) -> None:
    files = FilesUpload(label="Images: drop or choose", file_count="multiple", elem_id="pictures")
    button = gr.Button("Predict", variant="primary", elem_id="judge")
    cards = gr.HTML(elem_id="verdicts")
    download = gr.DownloadButton("Download as CSV", interactive=False, elem_id="csv")

    def show(pictures: list[str], progress: gr.Progress = gr.Progress()) -> tuple[str, Any]:  # noqa: B008 - Gradio fills it
        text, rows = api.show_pictures(pictures, lambda done, total: progress((done, total), unit="images"))
        return text, gr.DownloadButton(value=api.write_csv(rows) if rows else None, interactive=bool(rows))

    button.click(
        show, files, [cards, download], concurrency_id="many", concurrency_limit=WAITING, api_visibility="private"
    )


def _endpoints(api: Api) -> None:
    """Add named endpoints for `gradio_client`, curl and MCP clients behind invisible components."""
    with gr.Row(visible=False):
        picture = ImageUpload(type="filepath", label="picture")
        model = gr.Textbox(label="model", value=next(iter(api.models)))
        method = gr.Textbox(label="method", value="")
        strength = gr.Number(label="strength", value=STRENGTH, minimum=0, maximum=1)
        predict, explain = gr.Button("predict"), gr.Button("explain")
        answer, about = gr.JSON(label="answer"), gr.JSON(label="explanation")
        shown = MapImage(label="map", format="png")
        files, several = FilesUpload(label="pictures", file_count="multiple"), gr.Button("predict_many")
        table, download = gr.Dataframe(headers=list(COLUMNS), datatype="str"), gr.DownloadButton()

    def predict_many(pictures: list[str], progress: gr.Progress = gr.Progress()) -> tuple[Any, str | None]:  # noqa: B008 - Gradio fills it
        """Judge several pictures with all models; see `predict`.

        Args:
            pictures: image files, as data URLs or uploads of this page; no addresses elsewhere.
            progress: filled in by Gradio.

        Returns:
            A table with a row for each picture and model, and the same as a CSV file.
        """
        rows = api.table(pictures, lambda done, total: progress((done, total), unit="images"))
        return rows, api.write_csv(rows) if rows else None

    predict.click(
        api.predict, [picture, model], answer, api_name="predict",
        concurrency_id="predict", concurrency_limit=4 * WAITING,
    )  # fmt: skip
    explain.click(
        api.explain, [picture, model, method, strength], [shown, about], api_name="explain",
        concurrency_id="explain", concurrency_limit=WAITING,
    )  # fmt: skip
    several.click(
        predict_many, files, [table, download], api_name="predict_many", concurrency_id="many",
        concurrency_limit=WAITING,
    )  # fmt: skip
