"""The layout of the page in Chromium, its health, its tools and its fonts, with stand-ins for the models."""

import base64
import json
import re
from io import BytesIO

import httpx
import pytest
from bad_files import picture
from fontTools.ttLib import TTFont
from page_in_browser import CHROMIUM
from page_models import SPACE, served

from realfake_space.examples import GROUPS, caption, read_examples

pytestmark = pytest.mark.slow

EXAMPLE = SPACE / "examples/rocket.jpg"
MAPS = "document.querySelectorAll('.rf-column [id^=map-] img').length === 3"
WAIT = 120_000  # milliseconds
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
TOOLS = {"predict", "explain", "predict_many", "check"}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tmp_path_factory.mktemp("uploads")) as address:
        yield address


@pytest.fixture
def opened(url, browser):
    """Open the page at a size, upload a file, and wait for the maps."""
    pages = []

    def open_page(width, *, height=1000, file=EXAMPLE, dark=False):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        pages.append(page)
        page.set_default_timeout(WAIT)
        page.goto(url)
        page.wait_for_selector(".rf-example img")
        page.wait_for_function("[...document.querySelectorAll('[id^=method-] input')].every((input) => input.value)")
        if file:
            page.set_input_files("#picture input[type=file]", str(file))
            page.wait_for_function(MAPS)
        return page

    yield open_page
    for page in pages:
        page.close()


def box(page, selector):
    return page.locator(selector).first.bounding_box()


def tops(page, selector):
    return page.evaluate(f"[...document.querySelectorAll('{selector}')].map((e) => e.getBoundingClientRect().top)")


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_the_verdict_stands_directly_under_the_picture_and_before_the_controls(opened, width):
    page = opened(width, height=800)
    page.evaluate("scrollTo(0, 0)")
    shown, verdict, controls = (box(page, place) for place in ("#picture", "#summary .rf-verdict", "#controls"))
    assert 0 <= verdict["y"] - (shown["y"] + shown["height"]) <= 40
    assert verdict["y"] + verdict["height"] <= 800  # above the fold
    assert controls["y"] > verdict["y"] + verdict["height"]
    assert page.inner_text("#summary").startswith("Likely real, says wild")
    assert "Of 3 models, 1 calls it real and 2 are unsure" in page.inner_text("#summary")
    if width == 400:
        assert box(page, "#cards")["y"] < controls["y"]


@needs_browser
@pytest.mark.parametrize("width", [360, 400])
def test_no_tab_scrolls_sideways_on_a_phone(opened, width):
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 1000})  # where all tabs are in sight
    for tab in ("Several images", "What was measured", "How it works", "API"):
        page.click(f"button[role=tab]:has-text('{tab}')")
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
        page.set_viewport_size({"width": 1280, "height": 1000})


@needs_browser
def test_the_rows_of_the_cards_line_up(opened):
    page = opened(1280)
    for part in range(1, 6):
        heights = tops(page, f".rf-card > div:nth-child({part})")
        assert len(heights) == 3
        assert max(heights) - min(heights) <= 1, part
    for place in ("[id^=method-]", ".rf-column [id^=map-]", ".rf-legend"):
        heights = tops(page, place)
        assert len(heights) == 3
        assert max(heights) - min(heights) <= 1, place
    assert page.evaluate("new Set([...document.querySelectorAll('.rf-card')].map((e) => e.offsetHeight)).size") == 1


@needs_browser
def test_the_legend_says_for_what_bright_regions_speak(opened):
    page = opened(1280)
    assert "Bright = evidence for real." in page.inner_text("#legend-wild")
    assert "Bright = evidence for AI-generated." in page.inner_text("#legend-cifake-vit")
    page.click("#method-cifake-vit input")
    page.click("ul[role=listbox] >> text='rollout'")
    page.wait_for_selector("#legend-cifake-vit >> text=for or against")


@needs_browser
def test_examples_are_thumbnails_in_groups_with_labelled_failures(opened):
    page = opened(1280, file=None)
    page.wait_for_function("[...document.querySelectorAll('.rf-example img')].every((img) => img.naturalWidth)")
    for group in GROUPS:
        wanted = [caption(example) for example in read_examples() if example.group == group]
        found = [button.inner_text() for button in page.locator(f".rf-{group} button").all()]
        assert [text.split() for text in found] == [text.split() for text in wanted]
        assert page.locator(f".rf-{group} button img").count() == len(wanted) >= 2
        assert all(("wrong:" in text) == (group == "failure") for text in found)
    page.locator(".rf-failure button").first.click()
    page.wait_for_selector("#summary >> text=Likely AI-generated, say cifake-cnn and cifake-vit")


@needs_browser
def test_several_pictures_are_cards_with_thumbnails_and_a_csv_file(opened, tmp_path):
    page = opened(400, file=None)
    picture((300, 200)).save(tmp_path / "mine.png")
    (tmp_path / "text.png").write_bytes(b"text")
    page.click("button[role=tab]:has-text('Several images')")
    page.wait_for_timeout(500)
    page.set_input_files("#pictures input[type=file]", [str(tmp_path / "mine.png"), str(tmp_path / "text.png")])
    page.wait_for_selector("#pictures >> text=text")
    page.click("#judge")
    page.wait_for_selector(".rf-picture")
    assert page.locator(".rf-picture").count() == 2
    assert page.evaluate("document.querySelector('.rf-thumb img').naturalWidth") == 192
    assert "Likely real, says wild" in page.inner_text(".rf-picture.rf-real")
    assert "not an image file" in page.inner_text(".rf-picture.rf-refused")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    with page.expect_download() as download:
        page.click("#csv")
    assert download.value.path().read_text().count("\n") == 7


@needs_browser
def test_each_weight_of_the_fonts_has_all_letters(opened, url):
    page = opened(1280)
    faces = re.findall(r"src: url\('([^']+)'\).*?font-weight: (\d+)", httpx.get(f"{url}/theme.css").text, re.DOTALL)
    assert {int(weight) for _, weight in faces} == {400, 700}
    for address, _ in faces:
        letters = TTFont(BytesIO(httpx.get(f"{url}/{address}").content)).getBestCmap()
        assert set(range(ord(" "), 127)) <= set(letters), address
    assert page.evaluate("document.fonts.check('700 20px \"Source Sans Pro\"', 'Likely')")
    page.evaluate("window.verdict = getComputedStyle(document.querySelector('.rf-verdict'))")
    family, weight = page.evaluate("[verdict.fontFamily, verdict.fontWeight]")
    assert family.startswith('"Source Sans Pro"')
    assert weight == "700"


@needs_browser
def test_what_was_measured_is_one_chart_and_three_sentences(opened):
    page = opened(400, file=None)
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.click("button[role=tab]:has-text('What was measured')")
    page.wait_for_selector(".rf-chart svg")
    assert page.locator(".rf-chart svg").count() == 1
    assert not page.is_visible("#tables table")
    page.set_viewport_size({"width": 400, "height": 1000})
    small = "[...document.querySelectorAll('.rf-chart text')].map((e) => e.getBoundingClientRect().height)"
    assert min(page.evaluate(small)) >= 11
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.click("#tables button")
    page.wait_for_selector("#tables table")


def test_the_health_is_told(url):
    answer = httpx.get(f"{url}/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert httpx.post(f"{url}/health").status_code == 404


def call(url, method, **parameters):
    """Send a request as an MCP client does; return its status and the answer."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    headers = {"accept": "application/json, text/event-stream"}
    answer = httpx.post(f"{url}/gradio_api/mcp/", json=body, headers=headers, timeout=60)
    events = re.findall(r"^data: (.*)$", answer.text, re.MULTILINE)
    return answer.status_code, json.loads(events[-1] if events else answer.text)


def data_url(file):
    return f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"


def test_the_endpoints_are_tools_that_say_what_they_do(url):
    pytest.importorskip("mcp")
    status, answer = call(url, "tools/list")
    tools = {tool["name"]: tool for tool in answer["result"]["tools"]}
    assert (status, set(tools)) == (200, TOOLS)
    assert all(len(tool["description"]) > 40 for tool in tools.values())
    assert "evidence against no one" in tools["predict"]["description"]
    assert "data URL" in tools["predict"]["inputSchema"]["properties"]["picture"]["description"]


def test_a_tool_judges_a_picture_and_opens_no_other_place(url):
    pytest.importorskip("mcp")
    _, answer = call(url, "tools/call", name="predict", arguments={"picture": data_url(EXAMPLE), "model": "wild"})
    assert "Likely real" in answer["result"]["content"][0]["text"]
    [path] = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.jpg", EXAMPLE.read_bytes())}).json()
    place = f"{url}/gradio_api/file={path}"
    _, answer = call(url, "tools/call", name="predict", arguments={"picture": place, "model": "wild"})
    assert "Likely real" in answer["result"]["content"][0]["text"]
    _, answer = call(url, "tools/call", name="predict_many", arguments={"pictures": [data_url(EXAMPLE), place]})
    assert answer["result"]["content"][0]["text"].count("Likely real") == 2
    for place in (
        "/etc/passwd",
        "http://127.0.0.1:1/a.png",
        f"{url}/gradio_api/file=/etc/passwd",
        "file:///etc/passwd",
    ):
        _, answer = call(url, "tools/call", name="predict", arguments={"picture": place, "model": "wild"})
        assert answer["result"]["isError"]
        assert "root:" not in str(answer)
    forged = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    for value in (forged, [forged], [["/etc/passwd"]]):
        status, _ = call(url, "tools/call", name="predict", arguments={"picture": value})
        assert status == 400
