"""The passport of a run: what was asked, on which data, with which code, on which machine, and what it took."""

import hashlib
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from datasets import DatasetDict

_PACKAGES: Final = ("realfake-hf", "torch", "transformers", "datasets", "accelerate", "evaluate", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Code and machine: commit, versions, processor, cores, device."""
    cuda = torch.cuda.is_available()
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if cuda else "cpu",
        },
    }


def commit() -> str | None:
    """The git commit of this code, with `-dirty` where tracked files differ from it, but for those in `results/`.

    What one command leaves in `results/` says nothing of the code that the next one runs.

    Outside a checkout it is what the variable REALFAKE_COMMIT says, for code that was copied to a machine without its
    history; None where that is not set.
    """
    here = Path(__file__)
    if _git("ls-files", "--error-unmatch", here.name, folder=here.parent) is None:
        return os.environ.get("REALFAKE_COMMIT")  # installed, perhaps inside the checkout of something else
    head = _git("rev-parse", "HEAD", folder=here.parent)
    changed = _git("diff", "--name-only", "HEAD", "--", ":(top)", ":(top,exclude)results", folder=here.parent)
    return f"{head}-dirty" if changed else head


def data_fingerprint(images: DatasetDict) -> dict[str, Any]:
    """Size, class balance and digest of each split; the digest covers pictures, labels and ids, in order."""
    return {split: _split_fingerprint(rows) for split, rows in images.items()}


def peak_memory_gib() -> float:
    """The largest resident memory that this process has had, in GiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux the number below begins with the peak of the process that started this one
        [peak] = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")] or ["0"]
        if int(peak):
            return int(peak) / 1024**2
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**3


def _split_fingerprint(rows: Any) -> dict[str, Any]:  # noqa: ANN401 - datasets is not typed
    labels = rows["label"][:]
    text = "\n".join(f"{i} {k} {h}" for i, k, h in zip(rows["id"][:], labels, rows["sha256"][:], strict=True))
    fake = sum(labels)
    return {
        "n": len(labels),
        "n_real": len(labels) - fake,
        "n_fake": fake,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def _git(*words: str, folder: Path) -> str | None:
    """What git says, or None where it refuses or is not there."""
    try:
        said = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
