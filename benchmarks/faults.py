"""What is left of long work after a fault: `python -m benchmarks.faults --output_file results/faults.json`.

Each job is done unbroken, then broken by a fault and started again by the same command: its result must be the same.
What the file says of jobs that are not named by --jobs stays as it is.

Faults: kill -9 at random moments and as it writes, a full disk, a damaged file, a clock set back, two at once, a cache
that cannot be written. Disks are small tmpfs, which want root on Linux.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tqdm.auto import tqdm

from benchmarks.bad_pictures import through_everything
from benchmarks.breakable import LOG, PATIENCE, Bench, Ended, kill
from benchmarks.comparison import write_benchmark
from benchmarks.jobs import JOBS, Job, difference, result_of
from benchmarks.small_disk import small_disk
from benchmarks.writes import DieAt, NoteWrites, moments_of
from realfake_hf.cli import parse
from realfake_hf.environment import commit
from realfake_hf.store import CHECKSUMS

DAY: Final = 86_400.0
DAMAGED: Final[dict[str, str]] = {  # of each job that keeps what is read again: what is cut short
    "cache building": "cache/**/*.arrow",
    "training": "run/checkpoint-*/model.safetensors",
}
PIXELS: Final = "cache/**/*.npy"

Row = dict[str, Any]


@dataclass
class Settings:
    """How often, and which jobs."""

    kills: int = field(default=20, metadata={"help": "Moments at which each job is killed."})
    writes: int = field(default=200, metadata={"help": "Moments at which each job is killed as it writes, at most."})
    jobs: list[str] = field(default_factory=lambda: [job.name for job in JOBS], metadata={"help": "Which."})
    seed: int = field(default=0, metadata={"help": "Of the moments."})
    output_file: Path = field(default=Path("results/faults.json"), metadata={"help": "Where the JSON goes."})


def kills(bench: Bench, job: Job, whole: Ended, wanted: str, settings: Settings) -> Row:
    """Kill a job at random moments, and do it to its end each time."""
    draw = random.Random(f"{settings.seed} {job.name}")
    rows: list[Row] = []
    for number in tqdm(range(settings.kills), desc=f"{job.name}: kill -9", disable=None):
        place = bench.folder / f"{job.name}-kill-{number}".replace(" ", "-")
        moment = draw.uniform(0, whole.seconds)
        killed = bench.run(job, place, kill_after=moment)
        rows.append({"seconds": moment, "killed": _is_killed(killed), **_again(bench, job, place, wanted)})
        shutil.rmtree(place)
    return {**_counted(rows), "seconds_unbroken": whole.seconds, "rows": rows}


def kills_at_writes(bench: Bench, job: Job, wanted: str, settings: Settings) -> Row:
    """Kill a job as it writes, and do it to its end each time."""
    place = bench.folder / "writes"
    notes = NoteWrites(bench.folder / "writes.txt")
    bench.run(job, place, at_writes=notes)
    writes = notes.read()
    notes.file.unlink()
    shutil.rmtree(place)
    rows: list[Row] = []
    for moment in tqdm(moments_of(writes, settings.writes), desc=f"{job.name}: kill -9 as it writes", disable=None):
        killed = bench.run(job, place, at_writes=DieAt(moment))
        when = {"write": moment.write.kind, "begun": moment.is_begun, "killed": _is_killed(killed)}
        rows.append({**when, **_again(bench, job, place, wanted)})
        shutil.rmtree(place)
    return {**_counted(rows), "writes": len(writes), "rows": rows}


def _is_killed(ended: Ended) -> bool:
    return ended.status == -signal.SIGKILL


def _counted(rows: list[Row]) -> Row:
    return {
        "n": len(rows),
        "killed": sum(row["killed"] for row in rows),
        "same": sum(row["same"] for row in rows),
        "tracebacks": sum(row["traceback"] for row in rows),
    }


def _again(bench: Bench, job: Job, place: Path, wanted: str, *, clock: float = 0) -> Row:
    """Start the same command again, and compare."""
    ended = bench.run(job, place, clock=clock)
    found = result_of(place) if ended.status == 0 else ""
    same = found == wanted
    said = {} if same else {"log": ended.log[-600:], "differs": difference(wanted, found)}
    return {"same": same, "traceback": ended.has_traceback, **said}


def clock_set_back(bench: Bench, job: Job, whole: Ended, wanted: str) -> Row:
    """Kill a job half way, and go on a day earlier."""
    place = bench.folder / "clock"
    bench.run(job, place, kill_after=whole.seconds / 2)
    row = _again(bench, job, place, wanted, clock=-DAY)
    shutil.rmtree(place)
    return row


def two_at_once(bench: Bench, job: Job, _: Ended, wanted: str) -> Row:
    """Start two on one folder together."""
    place = bench.folder / "two"
    both = [bench.start(job, place) for _ in range(2)]
    for process in both:
        process.join(PATIENCE)
    same = all(process.exitcode == 0 for process in both) and result_of(place) == wanted
    said = (place / LOG).read_text(encoding="utf-8")
    shutil.rmtree(place)
    return {"same": same, "traceback": "Traceback" in said, **({} if same else {"log": said[-600:]})}


def damaged_file(bench: Bench, job: Job, _: Ended, wanted: str, *, pattern: str) -> Row:
    """Cut a file short that is read again, and start the same command; it must be named."""
    place = bench.folder / "damaged"
    file = _broken_off_after(bench, job, place, pattern)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    log = place / LOG
    before = log.stat().st_size
    row = _again(bench, job, place, wanted)
    row["named"] = f"{file.name} is not as its checksum says" in log.read_bytes()[before:].decode(errors="replace")
    shutil.rmtree(place)
    return row


def _broken_off_after(bench: Bench, job: Job, place: Path, pattern: str) -> Path:
    """Do a job until a second checkpoint is whole, or to its end, and give the last file that it will read again."""
    process = bench.start(job, place)
    while process.is_alive() and len(list(place.glob(f"run/checkpoint-*/{CHECKSUMS}"))) < 2:  # noqa: PLR2004
        time.sleep(0.02)
    if process.is_alive():
        kill(process)
    process.join()
    is_of_checkpoint = pattern.startswith("run/")
    whole = [file for file in place.glob(pattern) if not is_of_checkpoint or file.with_name(CHECKSUMS).is_file()]
    if not whole:
        raise RuntimeError(f"{job.name} left no {pattern} that could be damaged")
    return max(whole, key=lambda file: file.stat().st_mtime)


def full_disk(bench: Bench, job: Job, _: Ended, wanted: str, *, bytes_needed: int) -> Row:
    """Do a job on a disk that is too small, then on the same disk made larger."""
    place = bench.folder / "full"
    with small_disk(place, max(bytes_needed // 3, 2**16)) as remount:
        return _refused_first(bench, job, place, wanted, lambda: remount(f"size={4 * bytes_needed + 2**24}"))


def read_only_cache(bench: Bench, job: Job, _: Ended, wanted: str) -> Row:
    """Do a job whose cache cannot be written, then once more when it can."""
    place = bench.folder / "read-only"
    place.mkdir()
    with small_disk(place / "cache", 2**28) as remount:
        remount("ro")
        row = _refused_first(bench, job, place, wanted, lambda: remount("rw"))
    shutil.rmtree(place)
    return row


def _refused_first(bench: Bench, job: Job, place: Path, wanted: str, mend: Callable[[], None]) -> Row:
    """Do a job where it cannot be done, mend what is in its way, and do it again."""
    ended = bench.run(job, place)
    mend()
    row = _again(bench, job, place, wanted)
    said = {"refused": ended.status == 1, "sentence": _last_line(ended.log, bench.folder)}
    return {**said, **row, "traceback": row["traceback"] or ended.has_traceback}


def _last_line(log: str, folder: Path) -> str:
    lines = log.replace(str(folder), ".").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _all_faults(bench: Bench, job: Job, settings: Settings) -> Row:
    place = bench.folder / "whole"
    bench.run(job, place)  # once before the clock counts
    shutil.rmtree(place)
    whole = bench.run(job, place)
    if whole.status:
        raise RuntimeError(f"{job.name} does not come to its end unbroken: {whole.log[-2000:]}")
    wanted = result_of(place)
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    shutil.rmtree(place)
    given = (bench, job, whole, wanted)
    rows = {"kill -9": kills(*given, settings)}
    rows["kill -9 as it writes"] = kills_at_writes(bench, job, wanted, settings)
    rows["clock set back"] = clock_set_back(*given)
    if job.name in ("cache building", "search", "scoring"):
        rows["two at once"] = two_at_once(*given)
    if job.name in DAMAGED:
        rows["file cut short"] = damaged_file(*given, pattern=DAMAGED[job.name])
    if job.name == "cache building":
        rows["pixels cut short"] = damaged_file(*given, pattern=PIXELS)
    if os.geteuid() == 0 and sys.platform == "linux":
        rows["full disk"] = full_disk(*given, bytes_needed=size)
        rows["read-only cache"] = read_only_cache(*given)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, break, write, print; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    kept = json.loads(settings.output_file.read_text(encoding="utf-8")) if settings.output_file.is_file() else {}
    found: dict[str, Row] = kept.get("jobs", {})
    commits: dict[str, str | None] = kept.get("commits", dict.fromkeys(found, kept.get("commit")))
    with tempfile.TemporaryDirectory() as folder:
        try:
            bench = Bench(Path(folder))
            for job in JOBS:
                if job.name in settings.jobs:
                    found[job.name], commits[job.name] = _all_faults(bench, job, settings), commit()
        except (OSError, RuntimeError) as error:
            print(f"faults: {error}", file=sys.stderr)
            return 1
    with tempfile.TemporaryDirectory() as folder:
        bad = through_everything(Path(folder))
    write_benchmark(
        settings.output_file,
        settings=asdict(settings),
        results={"jobs": found, "commits": commits, "bad pictures": bad},
    )
    for name, faults in found.items():
        for fault, row in faults.items():
            print(f"{name}, {fault}: { ({k: v for k, v in row.items() if k != 'rows'}) }")
    print(*(f"bad pictures, {name}: {row}" for name, row in bad.items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
