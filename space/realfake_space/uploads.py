"""Upload controls that hand on the path of the file as it came: no byte of it is encoded anew or decoded here.

Gradio's own image control opens the file and fails on a broken one; its file control leaves an empty temporary file
beside each upload.
"""

from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles


class PictureUpload(gr.Image):
    """One picture: dropped, pasted or chosen."""

    is_template = True  # to Gradio: drawn as the class above

    def preprocess(self, payload: ImageData | None) -> str | None:
        """Give the path of the upload, or None."""
        if payload is None:
            return None
        if payload.path:
            return payload.path
        return super().preprocess(payload)  # type: ignore[return-value]  # a data URL of an API client


class PicturesUpload(gr.File):
    """Any number of files."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[str]:
        """Give the paths of the uploads."""
        given = payload if isinstance(payload, ListFiles) else [payload] if payload else []
        return [one.path for one in given]


Path(__file__).with_suffix(".pyi").unlink(missing_ok=True)  # Gradio writes a stub beside every new control's source
