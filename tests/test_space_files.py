"""The temporary files of the page."""

import os
import time
from pathlib import Path

from gradio.processing_utils import save_bytes_to_cache

from realfake_space.files import KEPT, delete_old


def test_old_files_are_deleted_whatever_wrote_them(tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"outside")
    folder = tmp_path / "uploads"
    folder.mkdir()
    files = {name: folder / name for name in ("example/photo.jpg", "old/photo.jpg", "tmpaborted", "map/map.png")}
    for file in files.values():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"old")
    (folder / "link").symlink_to(outside)
    table = save_bytes_to_cache(b"table", "verdicts.csv", str(folder))
    present = {files["example/photo.jpg"], files["example/photo.jpg"].parent}
    recent = {"new/photo.jpg", "tmpunfinished"}
    for path in [*folder.rglob("*"), folder / "link"]:
        os.utime(path, (time.time() - KEPT - 1,) * 2, follow_symlinks=False)
    for name in recent:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"new")
    delete_old(folder, except_for=present)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} == {
        "example/photo.jpg", *recent
    }  # fmt: skip
    assert not Path(table).exists()
    assert outside.read_bytes() == b"outside"


def test_empty_folders_are_deleted_when_they_are_as_old(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    os.utime(tmp_path / "old", (time.time() - KEPT - 1,) * 2)
    delete_old(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
