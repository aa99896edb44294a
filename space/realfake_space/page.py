"""The layout of the page and its events."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import gradio as gr
from starlette.middleware import Middleware

from realfake_hf.attribution.methods import METHODS, method_name
from realfake_space.answers import COLUMNS, limitation, placeholder
from realfake_space.api import Api
from realfake_space.components import FilesUpload, ImageUpload, MapImage
from realfake_space.examples import expected_table, read_examples
from realfake_space.gate import Gate
from realfake_space.models import Model
from realfake_space.uploads import MAX_BYTES

ROOT: Final = Path(__file__).resolve().parents[1]
STRENGTH: Final = 0.6
LOCAL: Final = "http://127.0.0.1:7860"  # the address in code.md
WAITING: Final = 16  # requests of a kind that may wait at once: a file that is slow to read holds up no other
INTRO: Final = """# realfake
Photograph or AI-generated? Small models answer, and show where they looked.
**{limitation} No answer is evidence, least of all against a person.**"""
MAP_NOTE: Final = (
    "A map shows what influenced the model's answer, under the assumptions of its method. It proves nothing about the "
    "image."
)


def launch_settings(page: gr.Blocks) -> dict[str, Any]:
    """Return the arguments of `launch`: limits, style, and nothing that leaves this machine."""
    return {
        "app_kwargs": {"middleware": [Middleware(Gate, page=page)]},
        "enable_monitoring": False,
        "max_file_size": MAX_BYTES,
        "theme": gr.themes.Default(),
        "css_paths": Path(__file__).with_name("page.css"),
        "footer_links": ["api", "settings"],
        "ssr_mode": False,
        "run_history": False,
        "state_session_capacity": 1000,  # pages and API calls whose state is kept
        "max_threads": 160,  # they wait for readers and models
    }


def build(models: Mapping[str, Model]) -> gr.Blocks:
    """Build the page for these models, which need not be loaded yet."""
    api = Api(models)
    with gr.Blocks(title="realfake", analytics_enabled=False) as page:
        gr.Markdown(INTRO.format(limitation=limitation(api.measured)))
        with gr.Tab("One image"):
            _one_image(page, api)
        with gr.Tab("Several images"):
            _several_images(api)
        with gr.Tab("Evaluation"):
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
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            upload = ImageUpload(
                type="filepath", sources=["upload", "clipboard"], format="png", height=260, buttons=["fullscreen"],
                label="Image: drop, paste or choose", elem_id="picture", alt_text="The uploaded image",
            )  # fmt: skip
            shown = gr.CheckboxGroup(names, value=names, label="Models", elem_id="models", visible=len(names) > 1)
            strength = gr.Slider(0, 1, value=STRENGTH, step=0.05, label="Opacity of the maps", elem_id="strength")
            examples = read_examples()
            gr.Examples(
                [[str(example.file)] for example in examples], [upload], label="Examples",
                example_labels=[example.title for example in examples],
            )  # fmt: skip
        with gr.Column(scale=5, min_width=280):
            with gr.Row(equal_height=False):
                columns = [_model_column(page, api, name, upload, strength) for name in names]
            gr.Markdown(MAP_NOTE, elem_classes="rf-note")
            metadata = gr.HTML(elem_id="facts")
    silent: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    upload.change(api.show_metadata, upload, metadata, **silent)
    if len(names) > 1:
        shown.change(lambda chosen: [gr.Column(visible=name in chosen) for name in names], shown, columns, **silent)
    with gr.Accordion("Expected answers to the examples", open=False):
        table = gr.Markdown(expected_table(), elem_id="expected")
        button = gr.Button("Check this installation", elem_id="check")
    button.click(partial(expected_table, api), None, table, api_name="check", concurrency_id="check")


def _model_column(page: gr.Blocks, api: Api, name: str, upload: gr.Image, strength: gr.Slider) -> gr.Column:
    with gr.Column(min_width=240) as column:
        verdict = gr.HTML(placeholder(name), elem_id=f"verdict-{name}")
        method = gr.Dropdown(
            [(method_name(method), method) for method in METHODS], label=f"Map of {name}", elem_id=f"method-{name}"
        )
        shown = MapImage(
            label=f"Where {name} looked", interactive=False, format="png", buttons=["download", "fullscreen"],
            elem_id=f"map-{name}", alt_text=f"The image under a map of where {name} looked; brighter means more.",
        )  # fmt: skip
    own: dict[str, Any] = {"concurrency_id": name, "concurrency_limit": WAITING, "api_visibility": "private"}
    explain = partial(api.show_map, name)
    inputs = [upload, method, strength]
    upload.change(
        partial(api.show_verdict, name), upload, verdict, show_progress="minimal", **own
    ).then(explain, inputs, shown, show_progress="minimal", **own)  # fmt: skip
    method.input(explain, inputs, shown, show_progress="minimal", **own)
    strength.release(explain, inputs, shown, show_progress="hidden", **own)
    page.load(partial(_method_choices, api, name), None, method, show_progress="hidden", **own)
    return column  # type: ignore[no-any-return]


def _method_choices(api: Api, name: str) -> gr.Dropdown:
    methods = api.models[name].facts.methods
    return gr.Dropdown([(method_name(method), method) for method in methods], value=methods[0])


def _several_images(api: Api) -> None:
    files = FilesUpload(label="Images: drop or choose", file_count="multiple", elem_id="pictures")
    button = gr.Button("Predict", variant="primary", elem_id="judge")
    table = gr.Dataframe(
        headers=list(COLUMNS), interactive=False, wrap=True, label="Verdicts", elem_id="verdicts", datatype="str",
        max_height=600, column_widths=["18%", "11%", "18%", "9%", "9%", "35%"],
    )  # fmt: skip
    download = gr.DownloadButton("Download as CSV", interactive=False, elem_id="csv")

    def predict(pictures: list[str], progress: gr.Progress = gr.Progress()) -> tuple[Any, str | None]:  # noqa: B008 - Gradio fills it
        rows = api.table(pictures, lambda done, total: progress((done, total), unit="images"))
        return rows, api.write_csv(rows) if rows else None

    button.click(
        predict, files, [table, download], api_name="predict_many", concurrency_id="many", concurrency_limit=WAITING
    ).then(
        lambda pictures: gr.DownloadButton(interactive=bool(pictures)), files, download, show_progress="hidden",
        queue=False, api_visibility="private",
    )  # fmt: skip


def _endpoints(api: Api) -> None:
    """Add named endpoints for `gradio_client` and curl behind invisible components."""
    with gr.Row(visible=False):
        picture = ImageUpload(type="filepath", label="picture")
        model = gr.Textbox(label="model", value=next(iter(api.models)))
        method = gr.Textbox(label="method", value="")
        strength = gr.Number(label="strength", value=STRENGTH, minimum=0, maximum=1)
        predict, explain = gr.Button("predict"), gr.Button("explain")
        answer, about = gr.JSON(label="answer"), gr.JSON(label="explanation")
        shown = MapImage(label="map", format="png")

    predict.click(
        api.predict, [picture, model], answer, api_name="predict",
        concurrency_id="predict", concurrency_limit=4 * WAITING,
        api_description="Predict one image; the default model is the first of the page.",
    )  # fmt: skip
    explain.click(
        api.explain, [picture, model, method, strength], [shown, about], api_name="explain",
        concurrency_id="explain", concurrency_limit=WAITING,
        api_description="Show where a model looked; an empty method means the model's default.",
    )  # fmt: skip
