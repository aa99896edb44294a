"""An app with the components of the Space's `/predict` that only returns the size of an upload: the cost of Gradio."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "space")]

import gradio as gr  # noqa: E402 - the folder of the Space comes first

from realfake_space.components import ImageUpload  # noqa: E402
from realfake_space.files import use_private_folder  # noqa: E402
from realfake_space.page import WAITING, launch_settings  # noqa: E402


def echo(picture: str, model: str) -> dict[str, object]:
    """Return the number of bytes of an upload."""
    return {"model": model, "bytes": Path(picture).stat().st_size}


def main() -> int:
    """Serve the app."""
    use_private_folder()
    with gr.Blocks(analytics_enabled=False) as page:
        picture, model = ImageUpload(type="filepath", label="picture"), gr.Textbox(label="model")
        answer = gr.JSON(label="answer")
        gr.Button("predict").click(echo, [picture, model], answer, api_name="predict", concurrency_limit=4 * WAITING)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    page.queue(max_size=256).launch(server_port=port, **launch_settings(page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
