"""What all tests share: caches of their own, no network, small pictures, and the real data where they lie."""

import importlib.util
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from bad_files import picture
from hypothesis import settings as hypothesis_settings
from page_in_browser import CHROMIUM
from PIL import Image

hypothesis_settings.register_profile(
    "without deadline", deadline=None
)  # a test that imports, or a busy machine, is slow
hypothesis_settings.load_profile("without deadline")

PictureBytes = Callable[..., bytes]
MakeFolder = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    """Point the Hugging Face caches at a folder of this run and go offline, before a test module imports anything."""
    home = tempfile.mkdtemp(prefix="realfake-tests-")
    config.add_cleanup(partial(shutil.rmtree, home, ignore_errors=True))
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_ENDPOINT", "HF_TOKEN"):
        os.environ.pop(name, None)
    os.environ.update(HF_HOME=home, HF_HUB_OFFLINE="1")
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"  # as many workers as cores


def _picture_bytes(
    seed: int | str = 0, format: str = "PNG", size: tuple[int, int] = (8, 8), **settings: object
) -> bytes:
    random = np.random.default_rng(list(str(seed).encode()))
    picture = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **settings)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def picture_bytes() -> PictureBytes:
    """Make the file of a small random picture: `picture_bytes(seed, format="PNG", size=(8, 8))`."""
    return _picture_bytes


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write files below a fresh folder: paths get a picture of their own each, or the bytes that a mapping gives."""

    def make(files: Iterable[str] | Mapping[str, bytes], name: str = "pictures") -> Path:
        given = files if isinstance(files, Mapping) else {path: _picture_bytes(path) for path in files}
        for path, data in given.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return tmp_path / name

    return make


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """The path of a picture as large as a small photograph."""
    file = tmp_path / "photo.jpg"
    picture((640, 480)).save(file)
    return str(file)


@pytest.fixture(scope="session")
def hub_stand_in() -> ModuleType:
    """The module beside this one that plays the Hub over HTTP."""
    return _module_beside("hub_stand_in")


def _module_beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `data` below REALFAKE_SHARED, where the real data sets lie."""
    if "REALFAKE_SHARED" not in os.environ:
        pytest.skip("REALFAKE_SHARED does not say where the real data sets lie")
    return Path(os.environ["REALFAKE_SHARED"]) / "data"


@pytest.fixture(scope="session")
def cifake_archive(shared_data: Path) -> Path:
    """CIFAKE's complete archive.zip."""
    archive = shared_data / "cifake" / "archive.zip"
    if not archive.is_file():
        pytest.skip(f"CIFAKE's archive is not at {archive}")
    return archive


@pytest.fixture(scope="module")
def browser():
    """A running Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()
