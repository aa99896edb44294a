"""Take the screenshots of the demo page in docs/, one of which the README shows.

`python -m tools.screenshots` serves the page, uploads a photograph of its examples, and writes a PNG for each width
and colour scheme; `--url` takes them of a page that is running already. It requires Chromium and playwright.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from realfake_hf.cli import command, setting

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS: Final = (1280, 400)  # pixels
COLORS: Final = 128  # of a PNG
TIMEOUT: Final = 600_000  # milliseconds, on a busy machine


@dataclass
class ScreenshotArguments:
    """What to show, and where to write it."""

    url: str | None = setting(None, "A page that is running; by default one is started.")
    image: Path = setting(Path("space/examples/rocket.jpg"), "The image to upload.")
    output_dir: Path = setting(Path("docs/screenshots"), "Folder of the screenshots.")


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """Yield the address of the page, which is started unless there is one."""
    if url is not None:
        yield url
        return
    from benchmarks.space_server import Server

    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            yield server.url
        finally:
            server.stop()


def open_page(browser: "Browser", url: str, image: Path) -> "Page":
    """Open the page, upload an image, and wait for all answers and maps."""
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900}, color_scheme="light")
    page.set_default_timeout(TIMEOUT)
    page.goto(url)
    page.wait_for_selector(".rf-example img")
    page.wait_for_function("[...document.querySelectorAll('[id^=method-] input')].every((input) => input.value)")
    page.set_input_files("#picture input[type=file]", str(image))
    page.wait_for_function("document.querySelectorAll('.rf-column [id^=map-] img').length === 3")
    page.wait_for_function("[...document.images].every((each) => each.complete)")
    return page


def take(page: "Page", *, width: int, dark: bool) -> bytes:
    """Return the whole page, in one of its widths and colour schemes, as the bytes of a PNG."""
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate(f"document.body.classList.toggle('dark', {str(dark).lower()})")
    page.wait_for_timeout(1000)  # transitions
    return page.screenshot(full_page=True)


def small(png: bytes) -> bytes:
    """Return a PNG with a palette."""
    from PIL import Image

    stream = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").quantize(COLORS).save(stream, "PNG", optimize=True)
    return stream.getvalue()


@command(ScreenshotArguments, name="screenshots", description=__doc__)
def main(arguments: ScreenshotArguments) -> None:
    """Write the screenshots."""
    import shutil

    from playwright.sync_api import sync_playwright

    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with served(arguments.url) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = open_page(browser, url, arguments.image)
        for width in WIDTHS:
            for name, dark in (("light", False), ("dark", True)):
                shot = small(take(page, width=width, dark=dark))
                (arguments.output_dir / f"space-{width}-{name}.png").write_bytes(shot)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
