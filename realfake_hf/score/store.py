"""The folder of scores: one parquet file for each finished part, written atomically."""

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from realfake_hf.score.inputs import Part
from realfake_hf.store import begin_or_resume

logger = logging.getLogger(__name__)

SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.string()),  # REAL or FAKE at the threshold of the model; null without a verdict
        pa.field("p_fake", pa.float32()),  # in [0, 1]
        pa.field("is_sure", pa.bool_()),  # outside the unsure band; null if the model has no band
        pa.field("is_far", pa.bool_()),  # out of distribution; null if the model has no familiarity
        pa.field("error", pa.string()),  # reason if there is no verdict
    ]
)
SETTINGS: Final = "scoring.json"
_COUNTS: Final = b"realfake_counts"


class ScoreStore:
    """A folder of scores.

    Args:
        folder: an empty folder, or the folder of an interrupted scoring with the same settings.
        settings: everything that determines the scores; recorded beside them.
        is_main: whether this is the main process, which records the settings and deletes unfinished files.

    Raises:
        ValueError: the folder contains other files, or scores with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, is_main: bool) -> None:
        self.folder = folder
        if is_main:
            begin_or_resume(folder / SETTINGS, settings, what="scoring", flag="--output")
            for file in folder.glob("part-*.parquet.*"):
                file.unlink(missing_ok=True)

    def file(self, part: Part) -> Path:
        """Return the file of the scores of a part."""
        return self.folder / f"part-{part.number:06d}.parquet"

    def counts(self, part: Part) -> Counter[str] | None:
        """Count the verdicts of a finished part: FAKE, REAL, unsure, far, errors; None if it is not finished.

        The part of a damaged file counts as not finished; the file is logged.
        """
        file = self.file(part)
        if not file.exists():
            return None
        try:
            with pq.ParquetFile(file) as scores:
                if scores.metadata.num_rows == part.n:
                    return Counter(json.loads(scores.schema_arrow.metadata[_COUNTS]))
            reason = "unexpected number of rows"
        except (pa.ArrowException, OSError, TypeError, KeyError) as error:
            reason = str(error).partition("\n")[0]
        logger.warning("%s is damaged (%s): scoring its images again", file, reason)
        return None

    def save(self, part: Part, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the scores of a part atomically, one row per image, with their counts."""
        schema = SCHEMA.with_metadata({_COUNTS: json.dumps(_count(rows))})
        scratch = self.folder / f"{self.file(part).name}.{os.getpid()}"
        with scratch.open("wb") as stream:
            pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), stream)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(self.file(part))


def _count(rows: Sequence[Mapping[str, Any]]) -> Counter[str]:
    counts = Counter(row["label"] if row["error"] is None else "errors" for row in rows)
    counts["unsure"] = sum(row["is_sure"] is False for row in rows)
    counts["far"] = sum(row["is_far"] is True for row in rows)
    return counts
