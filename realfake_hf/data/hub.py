"""Open data sets in Hugging Face form: on the Hub, in parquet files, or saved to disk."""

import glob
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from datasets import (
    ClassLabel,
    Dataset,
    DatasetBuilder,
    DatasetDict,
    Image,
    concatenate_datasets,
    config,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError, DatasetsError
from filelock import FileLock
from huggingface_hub.constants import HF_HUB_CACHE
from tqdm.auto import tqdm

from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.files import read_file
from realfake_hf.data.folders import (
    DEFAULT_SPLIT,
    SPLIT_COLUMNS,
    Record,
    has_image_suffix,
    names_split,
    parse_split,
    require_label,
    split_of_path,
    stated_split,
)
from realfake_hf.labels import ALL, LabelWords, flag_label, read_label
from realfake_hf.network import offline_if_unreachable
from realfake_hf.store import read_json, write_json

_LABEL_COLUMNS = ("label", "labels", "class")
_OTHER_LABEL_COLUMNS = ("target", "targets")  # used if no other column states the label
_DESCRIPTION_COLUMNS = ("content", "generator", "source", "group", "id", *SPLIT_COLUMNS)
_TEXTS = ("string", "large_string")
_FILES = ("binary", "large_binary")
_PART = 200  # streamed rows in memory, and in a file of a sample
_OPAQUE_ID = re.compile(r"[0-9a-f]{16}")


class HubRows:
    """The rows of the Hugging Face data set `name`, with any column names and label order.

    With `are_files`, `datasets` made the rows from image files that it downloaded to the cache of the Hub.
    """

    def __init__(self, splits: DatasetDict, *, name: str, are_files: bool = False) -> None:
        self._name = name
        self._are_files = are_files
        self._features = _common_features(splits, name)
        self._image = _image_column(self._features, name)
        self._splits = splits
        self._images = {split: _undecoded(rows.select_columns([self._image])) for split, rows in splits.items()}

    def records(self, words: LabelWords, fold_column: str | None = None) -> list[Record]:
        """Return one record for each row, given further words for the labels, and the column that states its fold."""
        label = _label_column(self._features, self._name, words)
        for text in getattr(self._features.get(label), "names", ()):  # only a ClassLabel has names
            require_label(text, where=f"the column {label!r} of {self._name}", column=label, words=words)
        return [record for split in self._splits for record in self._split_records(split, label, words, fold_column)]

    def read(self, key: str) -> bytes:
        """Return the image file of the row at a record's key."""
        split, _, row = key.rpartition("/")
        image = self._images[split][int(row)][self._image]
        if self._are_files and image["bytes"] is None:
            path = Path(image["path"]).resolve()
            if path.is_relative_to(Path(HF_HUB_CACHE).resolve()):
                return read_file(path)
        return bytes_of_row(image)

    def _split_records(self, split: str, label: str, words: LabelWords, fold: str | None) -> Iterator[Record]:
        columns = [name for name in dict.fromkeys((label, *_DESCRIPTION_COLUMNS, fold)) if name in self._features]
        default = DEFAULT_SPLIT if len(self._splits) == 1 and not names_split(split) else None
        rows = self._splits[split]
        for row, values in enumerate(rows.select_columns(columns) if columns else repeat({}, len(rows))):
            texts = {column: self._text(column, value) for column, value in values.items()}
            where = f"row {row} of {split} of {self._name}, {label!r}"
            stated = require_label(texts[label] or "", where=where, column=label, words=words) if label else None
            name = stated or words[ALL]
            yield Record(
                key=f"{split}/{row}",
                split=stated_split(texts, where=self._name) or default or parse_split(split, where=self._name),
                label=name,
                content=texts.get("content"),
                generator=texts.get("generator") if name == "FAKE" else None,
                source=texts.get("source") or self._name,
                group=texts.get("group") or None,
                fold=texts.get(fold or "") or None,
                id=texts.get("id") if _OPAQUE_ID.fullmatch(texts.get("id") or "") else None,
            )

    def _text(self, column: str, value: object) -> str | None:
        feature = self._features[column]
        if isinstance(feature, ClassLabel):
            return feature.names[value] if isinstance(value, int) and value >= 0 else None  # -1 means unlabelled
        return None if value is None else str(value)


def bytes_of_row(image: object) -> bytes:
    """Return the image file in a row, or raise `UnreadableImageError`; never open a path or address in the row."""
    match image:
        case bytes(data) | {"bytes": bytes(data)}:
            return data
        case {"path": str(path)}:
            name = PurePosixPath(path).name[:100]
            raise UnreadableImageError(f"the row contains no image, only the path of {name!r}, which is not opened")
    raise UnreadableImageError("the row contains no image")


def download(name: str) -> DatasetDict:
    """Download a data set from the Hub, or load it from the cache; its name alone must suffice."""
    with _found_on_the_hub(name):
        builder = load_dataset_builder(name)
        builder.download_and_prepare()
        splits = _as_splits(builder.as_dataset())
    check_training_files((builder.config.data_files or {}).get(DEFAULT_SPLIT, ()), name=name)
    return splits


def sample(name: str, n: int) -> DatasetDict:
    """Stream n rows of each split of a data set on the Hub, without downloading the rest.

    The rows are those of whole row groups of its parquet files, in random order, and are kept in the `datasets` cache.
    An interrupted call is resumed by the next one.
    """
    with _found_on_the_hub(name):
        builder = load_dataset_builder(name)
        files = {str(split): list(urls) for split, urls in (builder.config.data_files or {}).items()}
    others = [url for url in chain(*files.values()) if not url.endswith(".parquet")]
    if others or not files:
        raise ValueError(
            f"expected parquet files in {name}, to stream some of its rows; found {others[:1] or 'none'}. Give {name} "
            "without a number of rows."
        )
    check_training_files(files.get(DEFAULT_SPLIT, ()), name=name)
    digest = hashlib.sha256("\n".join([str(n), *chain(*files.values())]).encode()).hexdigest()[:16]  # with the commit
    folder = Path(config.HF_DATASETS_CACHE) / "realfake-samples" / f"{name.replace('/', '-')}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), _found_on_the_hub(name):
        return DatasetDict({split: _sample_split(builder, split, n, folder / split) for split in files})


def _sample_split(builder: DatasetBuilder, split: str, n: int, folder: Path) -> Dataset:
    """Store n rows of a split in parts, each beside the position of the stream after it."""
    folder.mkdir(exist_ok=True)
    parts = sorted(folder.glob("*.arrow"))
    done = sum(len(Dataset.from_file(str(part))) for part in parts)
    rows: Any = builder.as_streaming_dataset(split)
    rows = _undecoded(rows).reshard().shuffle(seed=0, buffer_size=1, max_buffer_input_shards=1).with_format("arrow")
    if parts:
        rows.load_state_dict(read_json(parts[-1].with_suffix(".json")))
    with tqdm(total=n, initial=done, desc=f"streaming {builder.repo_id} {split}", unit="image", disable=None) as bar:
        for table in rows.iter(_PART) if done < n else ():
            part, kept = folder / f"{len(parts):06d}.arrow", table.slice(0, n - done)
            write_json(part.with_suffix(".json"), rows.state_dict())
            _write_rows(kept.replace_schema_metadata(rows.features.arrow_schema.metadata), part)
            parts, done = [*parts, part], done + len(kept)
            bar.update(len(kept))
            if done == n:
                break
    return concatenate_datasets([Dataset.from_file(str(part)) for part in parts])


def _write_rows(table: pa.Table, file: Path) -> None:
    unfinished = file.with_suffix(".part")
    with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    unfinished.replace(file)


@contextmanager
def _found_on_the_hub(name: str) -> Iterator[None]:
    """Raise FileNotFoundError or ValueError with one sentence for errors of `datasets` and of the network."""
    try:
        with offline_if_unreachable():
            yield
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


def check_training_files(files: Iterable[str], *, name: str) -> None:
    """Reject names of another split among the training files; `datasets` overlooks names such as `Test.parquet`."""
    for file in files:
        path = PurePosixPath(re.sub(r"hf://datasets/[^/]+/[^/]+/", "", file))
        parts = path.parts[:-1] if has_image_suffix(path.name) else path.with_suffix("").parts
        if split_of_path(parts, path=str(path)) not in (None, DEFAULT_SPLIT):
            raise ValueError(
                f"expected training images in the split {DEFAULT_SPLIT} of {name}; found {path}. Download the data "
                "set, and give the path of its folder."
            )


def open_parquet(path: Path, files: Sequence[str] = ()) -> DatasetDict:
    """Open a parquet file, or the given files in a folder; their names state the splits, for all of them or none."""
    names = {
        file: split_of_path(PurePosixPath(file).with_suffix("").parts, path=file) for file in files or [path.name]
    }
    if unnamed := [file for file, split in names.items() if not split and any(names.values())]:
        raise ValueError(
            f"expected a split in the name of every parquet file in {path} or of none; found none in {unnamed[0]!r}."
        )
    by_split: dict[str, list[str]] = {}
    for file, split in names.items():
        by_split.setdefault(split or DEFAULT_SPLIT, []).append(glob.escape(str(path / file if files else path)))
    try:
        return _as_splits(load_dataset("parquet", data_files=by_split))
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
    """Return a data set as splits; a single one that was saved keeps the name of its split."""
    return loaded if isinstance(loaded, DatasetDict) else DatasetDict({str(loaded.split or DEFAULT_SPLIT): loaded})


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
    columns = columns or [column for column, feature in features.items() if getattr(feature, "dtype", "") in _FILES]
    if len(columns) != 1 and "image" not in columns:
        raise ValueError(
            f"expected one image column in {name}; found {len(columns)} among {list(features)}. "
            "Name the column to use `image`, with the type datasets.Image."
        )
    return "image" if "image" in columns else columns[0]


def _undecoded(rows: Any) -> Any:  # noqa: ANN401 - a Dataset or an IterableDataset
    """Return rows whose images are files."""
    for column in [name for name, feature in rows.features.items() if isinstance(feature, Image)]:
        rows = rows.cast_column(column, Image(decode=False))
    return rows


def _label_column(features: Mapping[str, Any], name: str, words: LabelWords) -> str:
    """Return the column that states the label: by its name, its class names, or as a truth value such as `is_ai`.

    Return "" if there is none, and the words state the label of such data sets.
    """
    ranks = {column: rank for column, feature in features.items() if (rank := _label_rank(feature, column, words))}
    candidates = [column for column in ranks if ranks[column] == min(ranks.values())]
    if not candidates and ALL in words:
        return ""
    if len(candidates) != 1:
        raise ValueError(
            f"expected one label column in {name} (a ClassLabel, strings, or a truth value such as is_ai); found "
            f"{candidates or 'none'} among {dict(features)}. Bare numbers are ambiguous: state their meaning with "
            "--labels 0=REAL,1=FAKE, or cast the column to a ClassLabel with names for real and fake."
        )
    return candidates[0]


def _label_rank(feature: Any, column: str, words: LabelWords) -> int:  # noqa: ANN401 - a feature has any type
    """Rank a column that may state the label, the most likely first; 0 if it cannot."""
    kind, is_class = str(getattr(feature, "dtype", "")), isinstance(feature, ClassLabel)
    is_text, is_number = kind in _TEXTS, kind == "bool" or kind.startswith(("int", "uint", "float"))
    is_named, is_other = (column.lower() in names for names in (_LABEL_COLUMNS, _OTHER_LABEL_COLUMNS))
    if is_class:
        is_understood = all(read_label(text, column=column, words=words) for text in feature.names)
        return (1 if is_named else 2) if is_understood else (5 if is_named else 6)
    if is_named or is_other:  # texts are read row by row
        return (1 if is_named else 4) if is_text or (is_number and words) else 0
    is_flag = is_number or (is_text and column.lower().startswith("is"))
    return 3 if is_flag and flag_label(column) else 0
