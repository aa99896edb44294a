"""Open data sets in Hugging Face form: on the Hub, in parquet files, or saved to disk."""

import glob
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Image, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError, DatasetsError

from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.files import read_file
from realfake_hf.data.folders import DEFAULT_SPLIT, Record, is_split_name, parse_split, require_label

_LABEL_COLUMNS = ("label", "labels", "class")
_DESCRIPTION_COLUMNS = ("content", "generator", "source", "split", "id")
_OPAQUE_ID = re.compile(r"[0-9a-f]{16}")


class HubRows:
    """The rows of the Hugging Face data set `name`, with any column names and label order.

    Raises:
        ValueError: the splits differ in their columns, or do not have one image column and one column of label names.
    """

    def __init__(self, splits: DatasetDict, *, name: str) -> None:
        self._name = name
        self._features = _common_features(splits, name)
        self._image, self._label = _image_column(self._features, name), _label_column(self._features, name)
        for text in getattr(self._features[self._label], "names", ()):  # only a ClassLabel has names
            require_label(text, where=f"the column {self._label!r} of {name}")
        self._images = {
            split: rows.select_columns([self._image]).cast_column(self._image, Image(decode=False))
            for split, rows in splits.items()
        }
        columns = [self._label, *(column for column in _DESCRIPTION_COLUMNS if column in self._features)]
        self._descriptions = {split: rows.select_columns(columns) for split, rows in splits.items()}

    def records(self) -> list[Record]:
        """Return one record for each row."""
        return [record for split in self._descriptions for record in self._split_records(split)]

    def read(self, key: str) -> bytes:
        """Return the image file of the row at a record's key."""
        split, _, row = key.rpartition("/")
        image: Mapping[str, Any] | None = self._images[split][int(row)][self._image]
        if image is None or image["bytes"] is image["path"] is None:
            raise UnreadableImageError("the row contains no image")
        return bytes(image["bytes"]) if image["bytes"] is not None else read_file(Path(image["path"]))

    def _split_records(self, split: str) -> Iterator[Record]:
        single = len(self._descriptions) == 1 and "split" not in self._features
        for row, values in enumerate(self._descriptions[split]):
            texts = {column: self._text(column, value) for column, value in values.items()}
            label = require_label(
                texts[self._label] or "", where=f"row {row} of {split} of {self._name}, {self._label!r}"
            )
            split_name = texts.get("split", split) or ""
            is_unnamed = single and not is_split_name(split_name)
            yield Record(
                key=f"{split}/{row}",
                split=DEFAULT_SPLIT if is_unnamed else parse_split(split_name, where=self._name),
                label=label,
                content=texts.get("content"),
                generator=texts.get("generator") if label == "FAKE" else None,
                source=texts.get("source") or self._name,
                id=texts.get("id") if _OPAQUE_ID.fullmatch(texts.get("id") or "") else None,
            )

    def _text(self, column: str, value: object) -> str | None:
        feature = self._features[column]
        if isinstance(feature, ClassLabel):
            return feature.names[value] if isinstance(value, int) and value >= 0 else None  # -1 means unlabelled
        return None if value is None else str(value)


def download(name: str) -> DatasetDict:
    """Download a data set from the Hub, or load it from the cache.

    Raises:
        FileNotFoundError: it does not exist, is private, or the Hub cannot be reached.
        ValueError: it cannot be loaded by its name alone.
    """
    try:
        return _as_splits(load_dataset(name))
    except OSError as error:  # network failures and refusals of the Hub
        raise FileNotFoundError(
            f"expected a local path or a data set on the Hugging Face Hub; found no path {name!r}, and the download "
            f"failed ({_first_line(error)}). Check the name and the network; for a private data set, log in with "
            "`hf auth login`."
        ) from error
    except (DatasetsError, RuntimeError, ValueError) as error:  # several configurations, a script, damaged files
        raise ValueError(
            f"expected a data set that loads by its name alone; loading {name!r} failed ({_first_line(error)}). "
            "Download it, and give the path of its parquet file or folder."
        ) from error


def open_parquet(path: Path) -> DatasetDict:
    """Open a parquet file, or a folder of parquet files whose names state the splits."""
    where = {"data_files" if path.is_file() else "data_dir": glob.escape(str(path))}
    try:
        return _as_splits(load_dataset("parquet", **where))
    except (DatasetsError, ValueError) as error:
        raise ValueError(
            f"expected parquet with rows in {path}; found {_first_line(error)}. Write or download it again."
        ) from error


def open_saved(path: Path) -> DatasetDict:
    """Open a folder written by `save_to_disk`."""
    try:
        return _as_splits(load_from_disk(str(path)))
    except (OSError, IndexError, KeyError, ValueError) as error:  # files missing or damaged, or no rows
        raise ValueError(
            f"expected a complete data set from save_to_disk in {path}; found {error!r}. Save it again."
        ) from error


def _first_line(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, DatasetGenerationError) else None  # its own message is generic
    return str(cause or error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _as_splits(loaded: Dataset | DatasetDict) -> DatasetDict:
    return loaded if isinstance(loaded, DatasetDict) else DatasetDict({DEFAULT_SPLIT: loaded})


def _common_features(splits: DatasetDict, name: str) -> Mapping[str, Any]:
    features = [rows.features for rows in splits.values()]
    if any(other != features[0] for other in features):
        raise ValueError(
            f"expected the same columns and label names in all splits of {name}; found "
            f"{'; '.join(f'{split}: {rows.features}' for split, rows in splits.items())}. Save it with one schema."
        )
    return features[0]  # type: ignore[no-any-return]


def _image_column(features: Mapping[str, Any], name: str) -> str:
    columns = [column for column, feature in features.items() if isinstance(feature, Image)]
    if len(columns) != 1 and "image" not in columns:
        raise ValueError(
            f"expected one image column in {name}; found {len(columns)} among {list(features)}. "
            "Name the column to use `image`, with the type datasets.Image."
        )
    return "image" if "image" in columns else columns[0]


def _label_column(features: Mapping[str, Any], name: str) -> str:
    usable = [
        column
        for column, feature in features.items()
        if isinstance(feature, ClassLabel)
        or (column in _LABEL_COLUMNS and getattr(feature, "dtype", None) in ("string", "large_string"))
    ]
    candidates = [column for column in usable if column in _LABEL_COLUMNS] or usable
    if len(candidates) != 1:
        raise ValueError(
            f"expected one label column in {name} (a ClassLabel or strings); found "
            f"{candidates or 'none'} among {dict(features)}. Bare numbers are ambiguous: "
            "cast the column to a ClassLabel with names for real and fake."
        )
    return candidates[0]
