"""What the README says of work past one machine, and through faults, from `results/`."""

import json
from pathlib import Path
from typing import Any, Final

PRICE_OF_AN_HOUR: Final = 0.1  # USD, of a machine with two cores; stated, not measured
KIB_OF_A_PICTURE: Final = 100  # as a photograph of the web; stated, not measured


def benchmark_streaming(results: Path) -> str:
    """Say how much memory a long stream takes."""
    found = _read(results / "benchmark_streaming.json")
    settings, memory = found["settings"], found["memory_mib"]
    early, late = (memory[name] for name in ("second tenth", "last tenth"))
    return (
        f"\n{found['n']:,} pictures through a stream with {settings['workers']} workers and buffers of "
        f"{settings['buffer_size']:,}, on {found['machine']['cores']} cores: "
        f"{found['images_per_second']:,.0f} pictures/s; memory of all processes {early:,.0f} MiB in the second tenth "
        f"and {late:,.0f} MiB in the last one, {found['growth']:.2f} times (goal: at most 1.1).\n"
    )


def faults_table(results: Path) -> str:
    """Say what was left of each job after each fault."""
    found = _read(results / "faults.json")
    rows = [
        f"| {job} | {fault} | {_outcome(row)} | {row.get('tracebacks', int(row.get('traceback', False)))} |"
        for job, faults in found["jobs"].items()
        for fault, row in faults.items()
    ]
    bad = found["bad pictures"]
    named = "; ".join(f"{way} {row['named']} of {row['n']}" for way, row in bad.items())
    note = (
        f"Each broken job was started again by the same command, on {found['machine']['cores']} cores. Files that are "
        f"no pictures, among pictures, and how many of them were named: {named}; "
        f"{sum(row['tracebacks'] for row in bad.values())} tracebacks."
    )
    return "\n".join(["| job | fault | result as unbroken | tracebacks |", "|---|---|---|--:|", *rows, "", note, ""])


def _outcome(row: dict[str, Any]) -> str:
    if "n" in row:
        return f"{row['same']} of {row['n']} (killed before the end: {row['killed']})"
    words = ["yes" if row["same"] else "no"]
    words += ["the file was named" if row["named"] else "the file was not named"] if "named" in row else []
    words += ["refused with a sentence first" if row["refused"] else "not refused"] if "refused" in row else []
    return ", ".join(words)


def scaling_table(results: Path) -> str:
    """Say how time and memory grew, job by job."""
    found = _read(results / "scaling.json")
    rows = [
        f"| {row['job']}{_processes(row['processes'])} | {row['n']:,} | {row['seconds']:,.1f} | "
        f"{row['memory_gib']:.2f} |"
        for row in sorted(found["rows"], key=lambda row: (row["job"], row["processes"], row["n"]))
    ]
    fits = [
        f"| {job} | {fit['slope_seconds']:.2f} | {fit['slope_memory']:.2f} | {fit['seconds_per_million']:,.0f} | "
        f"{fit['memory_gib_per_million']:.2f} |"
        for job, fit in found["fits"].items()
    ]
    return "\n".join(
        [
            "| job | pictures | seconds | peak memory, GiB |", "|---|--:|--:|--:|", *rows, "",
            "| job | power of n, seconds | power of n, memory | seconds of another million | GiB of another million |",
            "|---|--:|--:|--:|--:|", *fits, "",
        ]
    )  # fmt: skip


def _processes(n: int) -> str:
    return "" if n == 1 else f", {n} processes"


def scale_needs(results: Path) -> str:
    """Say what millions and billions of pictures would need, from what one more picture costs."""
    found, streamed = _read(results / "scaling.json"), _read(results / "benchmark_streaming.json")
    lines = [
        "| job | pictures | machine-hours | machines for a day | memory, GiB | price |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for job, fit in found["fits"].items():
        for millions in (10, 1000):
            hours = fit["seconds_per_million"] * millions / 3600
            memory = max(0.0, fit["memory_gib_per_million"]) * millions + _largest(found, job)
            lines.append(_need(job, millions, hours, f"{memory:,.1f}"))
    for millions in (10, 1000):
        hours = millions * 1e6 / streamed["images_per_second"] / 3600
        memory = streamed["memory_mib"]["last tenth"] / 1024
        lines.append(_need("a pass over a stream, without learning", millions, hours, f"{memory:,.1f}, whatever n"))
    storage = f"{KIB_OF_A_PICTURE * 10e6 / 2**30:,.1f} TiB"
    billion = f"{KIB_OF_A_PICTURE * 1e9 / 2**30:,.0f} TiB"
    note = (
        f"A machine is one of {found['machine']['cores']} cores at a stated {PRICE_OF_AN_HOUR:.2f} USD an hour. "
        f"Storage at a stated {KIB_OF_A_PICTURE} KiB a picture: {storage} for 10 million, {billion} for a billion."
    )
    return "\n".join([*lines, "", note, ""])


def _need(job: str, millions: int, hours: float, memory: str) -> str:
    machines = -(-hours // 24)
    price = hours * PRICE_OF_AN_HOUR
    return f"| {job} | {millions:,} million | {hours:,.1f} | {machines:,.0f} | {memory} | {price:,.2f} USD |"


def _largest(found: dict[str, Any], job: str) -> float:
    return float(max(row["memory_gib"] for row in found["rows"] if row["job"] == job and row["processes"] == 1))


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
