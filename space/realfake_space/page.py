"""The page: what stands where, and what happens on which event."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import gradio as gr

from realfake_hf.attribution.methods import METHODS, method_name
from realfake_space.answers import limits
from realfake_space.controls import MapImage, PicturesUpload, PictureUpload
from realfake_space.desk import Desk
from realfake_space.examples import EXAMPLES, check_installation, expected_table
from realfake_space.lineup import Contestant
from realfake_space.model_process import BATCH
from realfake_space.pictures import MOST_BYTES

ROOT: Final = Path(__file__).resolve().parents[1]
STRENGTH: Final = 0.6
KEPT_SECONDS: Final = 600  # an upload stays so long, for another model or method
INTRO: Final = """# realfake
Does a picture look like a photograph, or like the work of a generator? Small models answer, and show where they
looked. **{limits} No answer is evidence, least of all against a person.**"""
UNPROVEN: Final = (
    "A map says what moved the model's answer, up to a method's assumptions. It proves nothing about the picture."
)


def use_folder_of_its_own() -> None:
    """Keep uploads in a fresh folder of this process, which goes when the process goes."""
    folder = tempfile.mkdtemp(prefix="realfake-space-")
    os.environ["GRADIO_TEMP_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def launch_settings() -> dict[str, Any]:
    """What `launch` is given: limits, looks, nothing that leaves this machine."""
    return {
        "max_file_size": MOST_BYTES,
        "theme": gr.themes.Default(),
        "css_paths": Path(__file__).with_name("page.css"),
        "footer_links": ["api", "settings"],
        "ssr_mode": False,
        "run_history": False,
        "state_session_capacity": 1000,  # of pages and API calls, oldest forgotten first
        "max_threads": 8,  # each that decodes pictures keeps some memory
    }


def build(lineup: Mapping[str, Contestant]) -> gr.Blocks:
    """Make the page for these models, which need not be loaded yet."""
    desk = Desk(lineup)
    with gr.Blocks(title="realfake", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        gr.Markdown(INTRO.format(limits=limits(desk.measured)))
        with gr.Tab("One picture"):
            _one_picture(page, desk)
        with gr.Tab("Several pictures"):
            _several(desk)
        with gr.Tab("What was measured"):
            gr.Markdown(_text("measured.md"), elem_classes="rf-prose")
        with gr.Tab("How it works"):
            gr.Markdown(_text("method.md"), elem_classes="rf-prose")
        with gr.Tab("From code"):
            gr.Markdown(_text("code.md"), elem_classes="rf-prose")
            _api(desk)
    page.queue(default_concurrency_limit=1, max_size=256)
    return page  # type: ignore[no-any-return]  # Gradio says not what entering gives


def _text(name: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    return text.split("\n", 1)[1] if text.startswith("<!--") else text


def _one_picture(page: gr.Blocks, desk: Desk) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            upload = PictureUpload(
                type="filepath",
                sources=["upload", "clipboard"],
                format="png",
                height=260,
                buttons=["fullscreen"],
                label="Picture: drop, paste or choose",
                elem_id="picture",
                alt_text="The picture that you gave",
            )
            shown = gr.CheckboxGroup(
                list(desk.lineup), value=list(desk.lineup), label="Models", elem_id="models",
                visible=len(desk.lineup) > 1,
            )  # fmt: skip
            strength = gr.Slider(0, 1, value=STRENGTH, step=0.05, label="Strength of the maps", elem_id="strength")
            _examples(upload)
        with gr.Column(scale=5, min_width=280):
            with gr.Row(equal_height=False):
                columns = [_model_column(page, desk, name, upload, strength) for name in desk.lineup]
            gr.Markdown(UNPROVEN, elem_classes="rf-note")
            facts = gr.HTML(elem_id="facts")
    upload.change(desk.facts, upload, facts, queue=False, show_progress="hidden", api_visibility="private")
    if len(desk.lineup) > 1:
        shown.change(
            lambda names: [gr.Column(visible=name in names) for name in desk.lineup], shown, columns,
            queue=False, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
    _check(desk)


def _model_column(page: gr.Blocks, desk: Desk, name: str, upload: gr.Image, strength: gr.Slider) -> gr.Column:
    with gr.Column(min_width=240) as column:
        verdict = gr.HTML(desk.waiting(name), elem_id=f"verdict-{name}")
        method = gr.Dropdown(
            [(method_name(one), one) for one in METHODS], label=f"Map of {name}", elem_id=f"method-{name}"
        )
        shown = MapImage(
            label=f"Where {name} looked", interactive=False, format="png", buttons=["download", "fullscreen"],
            elem_id=f"map-{name}", alt_text=f"The picture under a map of where {name} looked; brighter is more.",
        )  # fmt: skip
    where: dict[str, Any] = {"concurrency_id": name, "concurrency_limit": 1, "api_visibility": "private"}
    explain = partial(desk.show_map, name)
    given = [upload, method, strength]
    upload.change(
        partial(desk.show_verdicts, name), upload, verdict, batch=True, max_batch_size=BATCH,
        show_progress="minimal", **where,
    ).then(explain, given, shown, show_progress="minimal", **where)  # fmt: skip
    method.input(explain, given, shown, show_progress="minimal", **where)
    strength.release(explain, given, shown, show_progress="hidden", **where)
    page.load(partial(_method_choices, desk, name), None, method, show_progress="hidden", **where)
    return column  # type: ignore[no-any-return]


def _method_choices(desk: Desk, name: str) -> gr.Dropdown:
    methods = desk.lineup[name].facts.methods
    return gr.Dropdown([(method_name(one), one) for one in methods], value=methods[0])


def _examples(upload: gr.Image) -> None:
    gr.Examples(
        [[str(one.file)] for one in EXAMPLES],
        [upload],
        label="Examples",
        example_labels=[one.title for one in EXAMPLES],
    )


def _check(desk: Desk) -> None:
    with gr.Accordion("What this installation should answer to the examples", open=False):
        table = gr.Markdown(expected_table(), elem_id="expected")
        button = gr.Button("Check this installation", elem_id="check")
    button.click(partial(check_installation, desk), None, table, api_name="check", concurrency_id="check")


def _several(desk: Desk) -> None:
    files = PicturesUpload(label="Pictures: drop or choose", file_count="multiple", elem_id="pictures")
    button = gr.Button("Judge them", variant="primary", elem_id="judge")
    table = gr.Dataframe(
        headers=list(desk.table_head), interactive=False, wrap=True, label="Verdicts", elem_id="verdicts",
        datatype="str", max_height=600, column_widths=["18%", "11%", "18%", "9%", "9%", "35%"],
    )  # fmt: skip
    download = gr.DownloadButton("Download as CSV", interactive=False, elem_id="csv")

    def judge(pictures: list[str], progress: gr.Progress = gr.Progress()) -> tuple[Any, gr.DownloadButton]:  # noqa: B008 - Gradio's way
        rows = desk.table(pictures, lambda done, of: progress((done, of), unit="pictures"))
        file = desk.csv(rows) if rows else None
        return rows, gr.DownloadButton(value=file, interactive=file is not None)

    button.click(judge, files, [table, download], api_name="predict_many", concurrency_id="many")


def _api(desk: Desk) -> None:
    """Named endpoints for `gradio_client` and curl, behind controls that nobody sees."""
    with gr.Row(visible=False):
        picture = PictureUpload(type="filepath", label="picture")
        model = gr.Textbox(label="model", value=next(iter(desk.lineup)))
        method = gr.Textbox(label="method", value="")
        strength = gr.Number(label="strength", value=STRENGTH)
        ask, show = gr.Button("predict"), gr.Button("explain")
        answer, explained = gr.JSON(label="answer"), gr.JSON(label="explanation")
        shown = MapImage(label="map", format="png")
    ask.click(
        desk.predict, [picture, model], answer, api_name="predict", batch=True, max_batch_size=BATCH,
        concurrency_id="predict", concurrency_limit=1,
        api_description="Judge one picture; the model's name may be left out.",
    )  # fmt: skip
    show.click(
        desk.explain, [picture, model, method, strength], [shown, explained], api_name="explain",
        concurrency_id="explain", concurrency_limit=1,
        api_description="Show where a model looked; no method means the model's usual one.",
    )  # fmt: skip
