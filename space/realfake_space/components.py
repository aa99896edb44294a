"""Gradio components that pass files on unchanged: no upload or map is decoded or encoded again.

Gradio's image component decodes an upload, fails on a broken one, and compresses its output at the highest level,
which takes longer than the model. Its file component leaves an empty temporary file beside each upload.
"""

from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles
from gradio.processing_utils import save_bytes_to_cache


class ImageUpload(gr.Image):
    """One image: dropped, pasted or selected."""

    is_template = True  # for Gradio: displayed as its parent class

    def preprocess(self, payload: ImageData | None) -> str | None:
        """Return the path of the upload, or None."""
        if payload is None:
            return None
        if payload.path:
            return payload.path
        return super().preprocess(payload)  # type: ignore[return-value]  # a data URL of an API client


class MapImage(gr.Image):
    """A map over its image, as the bytes of a PNG."""

    is_template = True

    def postprocess(self, value: bytes | None) -> ImageData | None:  # type: ignore[override]
        """Store the bytes for the browser to fetch."""
        if value is None:
            return None
        path = save_bytes_to_cache(value, "map.png", self.GRADIO_CACHE)
        return ImageData(path=path, orig_name="map.png", mime_type="image/png", size=len(value))


class FilesUpload(gr.File):
    """Any number of files."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[str]:
        """Return the paths of the uploads."""
        if payload is None:
            return []
        return [file.path for file in (payload if isinstance(payload, ListFiles) else [payload])]


Path(__file__).with_suffix(".pyi").unlink(missing_ok=True)  # Gradio writes a stub beside the source of every component
