"""What the README says of work past one machine, and through faults, from `results/`."""

import json
from pathlib import Path
from typing import Any


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


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
