"""The temporary files of the page: uploads, maps and tables are in one folder, and are deleted after ten minutes."""

import atexit
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

KEPT: Final = 600  # seconds; an upload is kept for another model or method
INTERVAL: Final = 60  # seconds between two deletions


def use_private_folder() -> Path:
    """Let Gradio store its files in a new folder of this process, which is removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="realfake-space-")).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def delete_regularly(folder: Path) -> None:
    """Delete old files until the process ends, but not those that are there now: the examples of the page.

    Gradio only knows uploads that were finished, in pages that are open.
    """
    present = frozenset(folder.rglob("*"))

    def run() -> None:
        while True:
            delete_old(folder, except_for=present)
            time.sleep(INTERVAL)

    threading.Thread(target=run, daemon=True).start()


def delete_old(folder: Path, *, except_for: Collection[Path] = ()) -> None:
    """Delete what was written more than ten minutes ago, and empty folders as old."""
    before = time.time() - KEPT
    for place, folders, files in os.walk(folder, topdown=False):
        for path in (Path(place) / name for name in [*files, *folders]):
            with suppress(OSError):  # a folder that is not empty, or a file that has just gone
                if path not in except_for and path.lstat().st_mtime < before:
                    (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()
