"""Fill the folder of the Space, so that it runs by itself: package, examples, what was measured.

`python -m realfake_hf.hub.space` writes `realfake_hf.zip`, `examples/`, `measured.json` and the tables of
`measured.md` into `space/`, from this package, its demo data, the models in `space/models` and `results/`.
"""

import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from realfake_hf.cli import parse
from realfake_hf.crosseval.cells import away, home, trained
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.published import load_grid
from realfake_hf.data.loading import load_images
from realfake_hf.detector import Detector
from realfake_hf.hub.readme import render
from realfake_hf.labels import FAKE
from realfake_hf.store import write_json

PACKAGE: Final = Path(__file__).resolve().parents[1]
ARCHIVE: Final = "realfake_hf.zip"
_CARRIED: Final = (".py", ".j2", ".typed")  # what of the package runs; its demo data stay behind
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # a ZIP archive's earliest date: the same files, the same archive
_SHOWN: Final = ("astronaut", "coffee")  # photographs of the demo data
_PHOTOGRAPH: Final = "rocket.jpg"  # of scikit-image, in the size in which one meets pictures


@dataclass
class SpaceArguments:
    """Where things are."""

    space: Path = field(default=Path("space"), metadata={"help": "The folder of the Space."})
    results: Path = field(default=Path("results"), metadata={"help": "The folder of results."})


def package_files() -> Iterator[tuple[str, bytes]]:
    """Give what the archive holds: names and bytes, in order."""
    for file in sorted(PACKAGE.rglob("*")):
        if file.suffix in _CARRIED and file.is_file():
            yield str(Path(PACKAGE.name) / file.relative_to(PACKAGE)), file.read_bytes()


def write_package(archive: Path) -> None:
    """Write the package as an archive that Python imports from."""
    with zipfile.ZipFile(archive, "w") as stream:
        for name, data in package_files():
            stream.writestr(zipfile.ZipInfo(name, _EPOCH), data, compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)


def measured(results: Path) -> dict[str, Any]:
    """Give what the page says of a probability, by the digest of a model's weights, from `crosseval.json`."""
    grid = load_grid(results / "crosseval.json")
    models = {grid.facts["models"][name]["weights"]: _of_model(grid, name) for name in trained(grid)}
    return {"commit": grid.facts["commit"], "models": models}


def _of_model(grid: Grid, name: str) -> dict[str, Any]:
    [own] = home(grid, name)
    wrong = [cell.confidence.wrong.value or 0 for cell in away(grid, name)]
    return {
        "name": name,
        "home": own.dataset,
        "format": "JPEG",
        "bins": [asdict(one) for one in own.confidence.bins],
        "wrong_elsewhere": [min(wrong), max(wrong)],
        "elsewhere": (
            f"Where it was sure, {own.confidence.wrong.value:.1%} of its verdicts were wrong there, and "
            f"{min(wrong):.0%} to {max(wrong):.0%} on {len(wrong)} sets of pictures from elsewhere."
        ),
    }


def write_examples(folder: Path, models: Path) -> None:
    """Write example pictures of the project's own demo data and one photograph, with the models' scores of each."""
    folder.mkdir(exist_ok=True)
    rows = [*_demo_examples(folder), _photograph(folder)]
    detectors = {one.digest(): (path.name, one) for path, one in _detectors(models)}
    for row in rows:
        row["expected"] = {
            digest: round(float(one.probabilities(folder / row["file"])[0]), 5)
            for digest, (_, one) in detectors.items()
        }
    names = {digest: name for digest, (name, _) in detectors.items()}
    write_json(folder / "expected.json", {"models": names, "examples": rows})


def _detectors(models: Path) -> Iterator[tuple[Path, Detector]]:
    for folder in sorted(models.iterdir()):
        if folder.is_dir():
            yield folder, Detector.from_pretrained(folder)


def _demo_examples(folder: Path) -> Iterator[dict[str, Any]]:
    from datasets import Image

    rows = load_images("demo")["test"].cast_column("image", Image(decode=False))
    for content in _SHOWN:
        for is_fake in (False, True):
            row = next(one for one in rows if one["content"] == content and (one["label"] == FAKE) == is_fake)
            file = folder / f"{content}-{'generated' if is_fake else 'photograph'}.jpg"
            file.write_bytes(row["image"]["bytes"])
            yield {
                "file": file.name,
                "title": f"{content}, {'through a toy generator' if is_fake else 'a window of a photograph'}",
                "origin": "this project's demo data",
                "is_fake": is_fake,
            }


def _photograph(folder: Path) -> dict[str, Any]:
    import skimage

    file = folder / _PHOTOGRAPH
    file.write_bytes((Path(skimage.__file__).parent / "data" / _PHOTOGRAPH).read_bytes())
    return {
        "file": file.name,
        "title": "rocket, a whole photograph",
        "origin": "SpaceX, public domain, by way of scikit-image",
        "is_fake": False,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Fill the folder; give the exit status."""
    [arguments] = parse(SpaceArguments, argv=argv, description=__doc__)
    write_package(arguments.space / ARCHIVE)
    write_json(arguments.space / "measured.json", measured(arguments.results))
    write_examples(arguments.space / "examples", arguments.space / "models")
    page = arguments.space / "measured.md"
    page.write_text(render(page.read_text(encoding="utf-8"), arguments.results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
