"""The folder of scores: a parquet file for each finished part, which is there whole or not at all."""

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
        pa.field("label", pa.string()),  # REAL or FAKE by the model's threshold; null where there is no verdict
        pa.field("p_fake", pa.float32()),  # in [0, 1]
        pa.field("is_sure", pa.bool_()),  # outside the model's band
        pa.field("is_far", pa.bool_()),  # unlike the pictures of its training; null where the model cannot say
        pa.field("error", pa.string()),  # why there is no verdict
    ]
)
ASKED: Final = "scoring.json"
_COUNTS: Final = b"realfake_counts"


class ScoreStore:
    """A folder of scores.

    Args:
        folder: an empty one, or that of the same scoring.
        asked: what is scored by what; kept beside the scores.
        writes: whether this process is the one that makes the folder.

    Raises:
        ValueError: the folder holds something else, or other scores.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any], *, writes: bool = True) -> None:
        self.folder = folder
        if writes:
            begin_or_resume(folder / ASKED, asked, what="scoring", flag="--output")

    def file(self, part: Part) -> Path:
        """Where the scores of a part lie."""
        return self.folder / f"part-{part.number:06d}.parquet"

    def counts(self, part: Part) -> Counter[str] | None:
        """Count the verdicts of a finished part: FAKE, REAL, unsure, far, errors; None where it is to be scored.

        A file that is cut short or damaged is named in the log, and its part is to be scored again.
        """
        file = self.file(part)
        if not file.exists():
            return None
        try:
            with pq.ParquetFile(file) as kept:
                if kept.metadata.num_rows == part.n:
                    return Counter(json.loads(kept.schema_arrow.metadata[_COUNTS]))
            reason = "it has another number of rows"
        except (pa.ArrowException, OSError, TypeError, KeyError) as error:
            reason = str(error).partition("\n")[0]
        logger.warning("%s is not whole (%s): its pictures are scored again", file, reason)
        return None

    def keep(self, part: Part, rows: Sequence[Mapping[str, Any]]) -> Counter[str]:
        """Write the scores of a part, on disk before it has its name; give its counts."""
        assert len(rows) == part.n
        counts = _count(rows)
        schema = SCHEMA.with_metadata({_COUNTS: json.dumps(counts)})
        scratch = self.folder / f"{self.file(part).name}.{os.getpid()}"
        with scratch.open("wb") as stream:
            pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), stream)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(self.file(part))
        return counts

    def sweep(self) -> None:
        """Delete what killed processes left half-written."""
        for file in self.folder.glob("part-*.parquet.*"):
            file.unlink(missing_ok=True)


def _count(rows: Sequence[Mapping[str, Any]]) -> Counter[str]:
    counts = Counter(row["label"] if row["error"] is None else "errors" for row in rows)
    counts["unsure"] = sum(row["is_sure"] is False for row in rows)
    counts["far"] = sum(row["is_far"] is True for row in rows)
    return counts
