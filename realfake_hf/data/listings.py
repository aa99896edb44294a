"""Read `metadata.csv` and `metadata.jsonl`, which describe the images of a folder or archive."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final

from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.files import Files, escapes_folder, is_hidden

_TABLES: Final = ("metadata.csv", "metadata.jsonl")
MAX_TABLE_BYTES: Final = 64 * 2**20  # of all tables of a source
_MAX_COLUMNS: Final = 1000
_FILE_COLUMNS: Final = ("file_name", "path")

Row = Mapping[str, str]  # lower-case column -> text; empty if there is no value


def read_listings(files: Files) -> dict[str, Row]:
    """Read all tables of a source: the columns of each listed image, by its path.

    Raises:
        ValueError: a table cannot be read, is too large, lists an image twice, or lists one outside of its folder.
    """
    max_rows = 2 * len(files.paths) + 1000  # 1% of unreadable images are allowed
    listed: dict[str, Row] = {}
    size = 0
    for table in [path for path in files.paths if PurePosixPath(path).name in _TABLES and not is_hidden(path)]:
        try:
            data = files.read(table)
        except UnreadableImageError as error:
            raise ValueError(f"expected a readable {table}; found an error: {error}.") from error
        size += len(data)
        if size > MAX_TABLE_BYTES:
            raise ValueError(
                f"expected tables of at most {MAX_TABLE_BYTES:,} bytes; found {size:,} with {table}. Remove columns "
                "that are not needed, or convert the data set to parquet."
            )
        for path, row in _rows(table, data):
            if path in listed:
                raise ValueError(f"expected each image once in {table}; found {path!r} twice. Keep one row.")
            listed[path] = row
            if len(listed) > max_rows:
                raise ValueError(f"expected rows of existing files in {table}; found more than {max_rows:,} rows.")
    return listed


def _rows(table: str, data: bytes) -> Iterator[tuple[str, Row]]:
    """Yield the path and the columns of each listed image."""
    kind, parse = ("JSON lines", _json_rows) if table.endswith(".jsonl") else ("comma-separated UTF-8", _csv_rows)
    try:
        for row in parse(data):
            valid = {column: value.encode("utf-8", "replace").decode() for column, value in row.items()}
            yield _path(table, row), valid  # without lone surrogates of JSON
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"expected {kind} in {table}; found {error}.") from error


def _csv_rows(data: bytes) -> Iterator[Row]:
    rows = csv.DictReader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=""), strict=True)
    if len(rows.fieldnames or ()) > _MAX_COLUMNS:
        raise csv.Error(f"more than {_MAX_COLUMNS} columns")
    for row in rows:
        yield {column.strip().lower(): value or "" for column, value in row.items() if column}


def _json_rows(data: bytes) -> Iterator[Row]:
    for line in filter(bytes.strip, io.BytesIO(data.removeprefix(b"\xef\xbb\xbf"))):
        row = json.loads(line)
        if not isinstance(row, dict):
            raise json.JSONDecodeError("expected an object", line.decode(errors="replace")[:80], 0)
        values = {column.strip().lower(): value for column, value in row.items()}
        yield {column: str(value) if isinstance(value, str | int | float) else "" for column, value in values.items()}


def _path(table: str, row: Row) -> str:
    name = next((row[column] for column in _FILE_COLUMNS if row.get(column)), None)
    if not name:
        found = str(row)[:200]
        raise ValueError(f"expected a column file_name or path with a value in each row of {table}; found {found}.")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise ValueError(f"expected names of files in {table}; found {name!r}.") from error
    if escapes_folder(name) or "\0" in name:
        raise ValueError(f"expected paths below the folder of {table}; found {name!r}, which lies outside.")
    return str(PurePosixPath(table).parent / name.replace("\\", "/"))
