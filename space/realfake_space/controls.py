"""Controls that hand on files as they are: no byte of an upload or a map is encoded anew or decoded here.

Gradio's own image control opens an upload and fails on a broken one, and compresses what it shows as hard as it can,
which takes longer than the model; its file control leaves an empty temporary file beside each upload.
"""

from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles
from gradio.processing_utils import save_bytes_to_cache


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


class MapImage(gr.Image):
    """A map over its picture, given as the bytes of a PNG."""

    is_template = True

    def postprocess(self, value: bytes | None) -> ImageData | None:  # type: ignore[override]
        """Keep the bytes where the browser fetches them."""
        if value is None:
            return None
        path = save_bytes_to_cache(value, "map.png", self.GRADIO_CACHE)
        return ImageData(path=path, orig_name="map.png", mime_type="image/png", size=len(value))


class PicturesUpload(gr.File):
    """Any number of files."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[str]:
        """Give the paths of the uploads."""
        given = payload if isinstance(payload, ListFiles) else [payload] if payload else []
        return [one.path for one in given]


Path(__file__).with_suffix(".pyi").unlink(missing_ok=True)  # Gradio writes a stub beside every new control's source
