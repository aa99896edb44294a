"""The environment of a result: code, packages, machine, data and peak memory."""

import hashlib
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions, packages_distributions, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datasets import DatasetDict

MAIN_PACKAGES: Final = (
    "realfake-hf", "torch", "transformers", "datasets", "accelerate", "evaluate", "numpy", "pillow"
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Return the commit, the versions of packages, processor, number of cores and threads, and device."""
    import torch

    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": _versions(),
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        },
    }


def commit() -> str | None:
    """Return the git commit of this code, with `-dirty` if tracked files outside `results/` have changed.

    Changes in `results/` are ignored, because an earlier command may have written there. Outside a checkout, return
    the environment variable REALFAKE_COMMIT, or None if it is not set.
    """
    file = Path(__file__)
    if _git("ls-files", "--error-unmatch", file.name, folder=file.parent) is None:
        return os.environ.get("REALFAKE_COMMIT")  # installed, perhaps inside the checkout of another project
    head = _git("rev-parse", "HEAD", folder=file.parent)
    changed = _git("diff", "--name-only", "HEAD", "--", ":(top)", ":(top,exclude)results", folder=file.parent)
    return f"{head}-dirty" if changed else head


def data_fingerprint(images: "DatasetDict") -> dict[str, Any]:
    """Return the fingerprint of each split."""
    return {split: split_fingerprint(rows) for split, rows in images.items()}


def split_fingerprint(rows: Any) -> dict[str, Any]:  # noqa: ANN401 - datasets is not typed
    """Return the size, class balance and digest of a data set; the digest covers ids, labels and images in order."""
    labels = rows["label"][:]
    text = "\n".join(f"{i} {k} {h}" for i, k, h in zip(rows["id"][:], labels, rows["sha256"][:], strict=True))
    n_fake = sum(labels)
    return {
        "n": len(labels),
        "n_real": len(labels) - n_fake,
        "n_fake": n_fake,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def peak_memory_gib() -> float:
    """Return the peak resident memory of this process in GiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, ru_maxrss starts with the peak of the parent process
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024**2
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**3


def main_versions(versions: Mapping[str, str]) -> dict[str, str]:
    """Return the recorded versions of `MAIN_PACKAGES`, for tables and cards."""
    return {name: versions[name] for name in MAIN_PACKAGES if name in versions}


def _versions() -> dict[str, str]:
    """Return the versions of the installed packages that are imported or required, by their names in lower case."""
    imported = {name.partition(".")[0] for name in sys.modules}
    packages = {name for module, names in packages_distributions().items() if module in imported for name in names}
    packages |= {re.split(r"[^\w.-]", requirement)[0] for requirement in requires("realfake-hf") or ()}
    installed = {distribution.metadata["Name"].lower(): distribution for distribution in distributions()}
    names = {name.lower() for name in (*packages, *MAIN_PACKAGES)}
    return {name: installed[name].version for name in sorted(names & installed.keys())}


def _git(*words: str, folder: Path) -> str | None:
    """Return the output of git, or None if it fails or is not installed."""
    try:
        process = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
