"""Upload controls that hand on the path of the file as it came: no byte of it is encoded anew or decoded here.

Gradio's own image control opens the file and fails on a broken one; its file control leaves an empty temporary file
beside each upload. Both look the same here. They are changed one by one, as Gradio writes a stub file beside every new
class.
"""

from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles


def picture_upload(**settings: Any) -> gr.Image:  # noqa: ANN401 - Gradio's
    """Make a control for one picture: dropped, pasted or chosen; a function gets its path, or None."""
    control = gr.Image(type="filepath", sources=["upload", "clipboard"], format="png", **settings)
    decode = control.preprocess

    def give_path(payload: ImageData | None) -> str | None:
        if payload is None:
            return None
        if payload.path:
            return payload.path
        return decode(payload)  # type: ignore[return-value]  # a data URL of an API client

    control.preprocess = give_path  # type: ignore[method-assign]
    return control


def pictures_upload(**settings: Any) -> gr.File:  # noqa: ANN401 - Gradio's
    """Make a control for any number of files; a function gets their paths."""
    control = gr.File(file_count="multiple", **settings)

    def give_paths(payload: ListFiles | FileData | None) -> list[str]:
        given = payload if isinstance(payload, ListFiles) else [payload] if payload else []
        return [one.path for one in given]

    control.preprocess = give_paths  # type: ignore[method-assign]
    return control
