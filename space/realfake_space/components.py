"""Gradio components that pass files on unchanged: no upload or map is decoded or encoded again.

Gradio's image component decodes an upload, fails on a broken one, and compresses its output at the highest level,
which takes longer than the model. Its file component leaves an empty temporary file beside each upload.
"""

from abc import ABCMeta
from secrets import token_hex
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta
from gradio.data_classes import FileData, ImageData, ListFiles
from gradio.processing_utils import save_bytes_to_cache

from realfake_space.gate import RefusedError, uploaded_file


class Unstubbed(ComponentMeta):
    """Make a component without writing a stub file beside its source, which may be read-only.

    The rest of what Gradio's metaclass does concerns new events and constructors, and there are none.
    """

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> type:  # noqa: D102
        return ABCMeta.__new__(cls, name, bases, attributes)


class ImageUpload(gr.Image, metaclass=Unstubbed):
    """One image: dropped, pasted or selected."""

    is_template = True  # for Gradio: displayed as its parent class

    def preprocess(self, payload: ImageData | None) -> str | None:
        """Return the path of the upload, or None."""
        try:
            return uploaded_file(payload.path) if payload and payload.path else None
        except RefusedError:  # deleted while it waited; the page shows that there is no image
            return None


class MapImage(gr.Image, metaclass=Unstubbed):
    """A map over its image, as the bytes of a PNG."""

    is_template = True

    def postprocess(self, value: bytes | None) -> ImageData | None:  # type: ignore[override]
        """Store the bytes for the browser to fetch, in a file of their own: Gradio would write an equal one again."""
        if value is None:
            return None
        path = save_bytes_to_cache(value, f"map-{token_hex(8)}.png", self.GRADIO_CACHE)
        return ImageData(path=path, orig_name="map.png", mime_type="image/png", size=len(value))


class FilesUpload(gr.File, metaclass=Unstubbed):
    """Any number of files."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[str]:
        """Return the paths of the uploads."""
        if payload is None:
            return []
        try:
            return [uploaded_file(file.path) for file in (payload if isinstance(payload, ListFiles) else [payload])]
        except RefusedError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def api_info(self) -> dict[str, Any]:
        """Return the schema of the uploads with its definitions in place, where MCP clients find them."""
        schema: dict[str, Any] = super().api_info()
        if definitions := schema.pop("$defs", None):
            file, meta = definitions["FileData"], definitions["FileDataMeta"]
            schema["items"] = {**file, "properties": {**file["properties"], "meta": meta}}
        return schema
