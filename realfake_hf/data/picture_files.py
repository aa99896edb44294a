"""Picture files that are named by their paths, by the folders they lie in, or by globs."""

from collections.abc import Sequence
from glob import glob
from pathlib import Path

from realfake_hf.data.files import FolderFiles
from realfake_hf.data.folders import is_named_as_picture


def find_picture_files(words: Sequence[str]) -> list[Path]:
    """Find pictures by files, folders and globs, each file once, in the order of the words.

    Args:
        words: of a folder, the files named as pictures below it, at any depth; of a glob, every file that it matches
            and that is not hidden.

    Raises:
        FileNotFoundError: a word stands for no file.
    """
    return list(dict.fromkeys(path for word in words for path in _paths(word)))


def _paths(word: str) -> list[Path]:
    path = Path(word).expanduser()
    if path.is_dir():
        found = [path / file for file in FolderFiles(path).paths if is_named_as_picture(file)]
    elif path.exists() or path.is_symlink():  # a link to nothing is counted as unreadable
        found = [path]
    else:
        matches = glob(str(path), recursive=True)  # noqa: PTH207  it skips hidden files, as shells do
        found = sorted(match for match in map(Path, matches) if match.is_file())
    if not found:
        raise FileNotFoundError(f"wanted pictures at {word!r}; found none. Give files, folders or globs.")
    return found
