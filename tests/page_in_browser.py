"""Pages as a parser and as a browser see them."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return "".join(self.text)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


MEASURE = """<script>addEventListener("load", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const images = [...document.images];
  parent.postMessage(JSON.stringify({
    client: document.documentElement.clientWidth, width: document.documentElement.scrollWidth,
    images: images.length, broken: images.filter((image) => !image.naturalWidth).length,
    dark: images.filter((img) => img.closest("picture")?.querySelector("source").srcset === img.currentSrc).length,
    ground: getComputedStyle(document.body).backgroundColor,
    small: [...document.querySelectorAll("p, td, th, li, figcaption")]
      .filter((element) => parseFloat(getComputedStyle(element).fontSize) < 12).length,
  }), "*");
})</script>"""
FRAME = """<!DOCTYPE html><iframe src="page.html" style="border: 0; width: {}px; height: {}px"></iframe><pre></pre>
<script>addEventListener("message", ({{ data }}) => {{ document.querySelector("pre").textContent = data }})</script>"""


def seen(file, folder, *, size, dark):
    """Measure a page in Chromium, in a frame, since its windows are at least 500 pixels wide."""
    allowing = "script-src 'unsafe-inline'; style-src"
    copy = file.read_text(encoding="utf-8").replace("style-src", allowing, 1).replace("</body>", f"{MEASURE}</body>")
    (folder / "page.html").write_text(copy, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(*size), encoding="utf-8")
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
             f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=10000", "--dump-dom",
             (folder / "frame.html").as_uri()]  # fmt: skip
    dom = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    return json.loads(re.search(r"<pre>(.*?)</pre>", dom, re.DOTALL)[1])
