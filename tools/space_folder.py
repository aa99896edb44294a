"""Stage the Space: package, examples, and results.

`python -m tools.space_folder` writes into `space/`: the package as `realfake_hf.zip`, `examples/` with the expected
scores of the models in `space/models`, `measured.json`, the tables of `measured.md`, and `requirements.txt` with the
versions of `uv.lock`. The archive is not tracked by git; in a checkout, `space/app.py` imports the package itself.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from realfake_hf.cli import command, setting
from realfake_hf.estimate import to_plain
from realfake_hf.store import read_json, write_json, write_text

_PYTHON: Final = {"python_version": "3.11", "python_full_version": "3.11.0", "sys_platform": "linux"}  # of the Space
_ANY_PYTHON: Final = "python_version > '3'"
_PHOTOGRAPHS: Final = {  # in scikit-image; as large as usual uploads
    "rocket.jpg": ("rocket", "SpaceX, public domain, from scikit-image"),
    "chelsea.png": ("cat", "Stefan van der Walt, CC0, from scikit-image"),
}
_DEMO: Final = {  # test images of the demo data: id, title, group
    "cat-small.jpg": ("06d3c9fa8c0676cf", "cat, a window of a photograph", "small"),
    "rocket-small.jpg": ("048b42ed79d7c3c5", "rocket, a window of a photograph", "small"),
    "china-small.jpg": ("28a288a311575ac3", "palace, a window of a photograph", "failure"),
    "astronaut-generated.jpg": ("006f3bfcb8d9bc17", "astronaut, through a toy generator", "failure"),
}
_SHOWN: Final = {  # data sets in the chart
    "cifake": "CIFAKE",
    "diffusiondb-coco-imagenet": "DiffusionDB",
    "progan-lsun": "ProGAN",
    "wild-art": "art of Reddit",
}
_TABLE: Final = re.compile(r"(<!-- results: (\w+)(, first table)? -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass
class SpaceArguments:
    """The folders to read and write."""

    space: Path = setting(Path("space"), "Folder of the Space.")
    results: Path = setting(Path("results"), "Folder of results.")
    lock: Path = setting(Path("uv.lock"), "The locked versions of the dependencies.")


def requirements(lock: Path) -> str:
    """Return the direct dependencies of the package and its extra `space`, one a line, at their locked versions."""
    from packaging.markers import Marker

    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    [own] = [package for package in packages if package["source"] == {"editable": "."}]
    extras = own["optional-dependencies"]
    names = {entry["name"] for entry in (*own["dependencies"], *extras["train"], *extras["space"])} - {own["name"]}
    lines = [
        f"{package['name']}=={package['version']}\n"
        for package in packages
        if package["name"] in names
        and any(Marker(text).evaluate(_PYTHON) for text in package.get("resolution-markers", [_ANY_PYTHON]))
    ]
    return "".join(sorted(lines))


def insert_tables(text: str, results: Path) -> str:
    """Insert results into a page.

    Each block `<!-- results: NAME --> ... <!-- end -->` is replaced by `results/NAME.md`, and each block
    `<!-- results: NAME, first table --> ... <!-- end -->` by that file up to the end of its first table.
    """

    def insert(block: re.Match[str]) -> str:
        tables = (results / f"{block[2]}.md").read_text(encoding="utf-8")
        if block[3]:
            tables = tables[: tables.index("\n\n", tables.index("\n|"))] + "\n"
        return f"{block[1]}{tables}{block[4]}"

    return _TABLE.sub(insert, text)


def measured(results: Path) -> dict[str, Any]:
    """Return the measurements that the Space shows beside a probability, by digest of the weights."""
    from realfake_hf.crosseval.grid import read_grid

    grid = read_grid(results / "crosseval.json")
    models = {}
    for name in grid.trained_models:
        [own] = grid.home(name)
        wrong = [cell.confidence.wrong.value or 0 for cell in grid.away(name)]
        models[grid.facts["models"][name]["weights"]] = {
            "name": name,
            "home": own.dataset,
            "format": "JPEG",
            "bins": [to_plain(row) for row in own.confidence.bins_after or own.confidence.bins],  # as the page shows
            "rows": [
                _row(cell.dataset, to_plain(cell.confidence.wrong), is_home=cell is own)
                for cell in (own, *grid.away(name))
            ],
            "wrong_elsewhere": [min(wrong), max(wrong)],
            "elsewhere": (
                f"{own.confidence.wrong.value:.1%} of its verdicts outside the unsure band were wrong there, and "
                f"{min(wrong):.0%} to {max(wrong):.0%} on {len(wrong)} other data sets."
            ),
        }
    return {"commit": grid.facts["commit"], "models": models | _measured_wild(results)}


def _row(dataset: str, wrong: Mapping[str, Any], *, is_home: bool = False) -> dict[str, Any]:
    """Return a row of the chart: the share of sure verdicts that were wrong, with its interval."""
    estimate = {key: wrong[key] for key in ("value", "low", "high", "n")}
    return {"images": _SHOWN[dataset], "is_home": is_home, **estimate}


def _folds(bands: Mapping[str, Any], variant: str, shown: str) -> dict[str, Any]:
    """Return a row of the chart: the share over all folds, and the lowest and highest of a fold."""
    wrong = [variants[variant]["wrong"] for variants in bands.values()]
    shares, n = [fold["value"] for fold in wrong], sum(fold["n"] for fold in wrong)
    value = sum(fold["k"] for fold in wrong) / n
    return {"images": shown, "is_home": True, "value": value, "low": min(shares), "high": max(shares), "n": n}


def _measured_wild(results: Path) -> dict[str, Any]:
    from realfake_hf.experiments.peers import shown_elsewhere

    wild, peers = read_json(results / "wild.json"), read_json(results / "wild_peers.json")
    inside = [row["wrong"]["value"] for variants in wild["bands"].values() for row in variants.values()]
    outside = [facts["verdicts"]["wrong"]["value"] for facts in shown_elsewhere(peers).values()]
    entry = {
        "name": "wild",
        "home": "wild",
        "format": None,
        "bins": wild["kept"]["bins"],
        "rows": [
            _folds(wild["bands"], "plain", "images of the web"),
            _folds(wild["bands"], "hard", "the same, compressed"),
            *(_row(name, facts["verdicts"]["wrong"]) for name, facts in shown_elsewhere(peers).items()),
        ],
        "wrong_elsewhere": [min(outside), max(outside)],
        "elsewhere": (
            f"Of its verdicts outside the unsure band, {min(inside):.0%} to {max(inside):.0%} were wrong on images of "
            f"owners that it did not know, compressed ones among them, and at most {max(outside):.0%} on other data "
            "sets."
        ),
    }
    return {wild["kept"]["weights"]: entry}


def write_examples(folder: Path, models: Path) -> None:
    """Write example images, and `expected.json` with the scores of each model and which models are sure but wrong."""
    from realfake_hf.detector import Detector

    folder.mkdir(exist_ok=True)
    examples: list[dict[str, Any]] = [
        {**example, "wrong": [], "expected": {}} for example in (*_photographs(folder), *_demo_examples(folder))
    ]
    names = {}
    for place in sorted(path for path in models.iterdir() if path.is_dir()):
        detector = Detector.from_pretrained(place)
        names[detector.digest()] = place.name
        for example in examples:
            [verdict] = detector.predict(folder / example["file"])
            example["expected"][detector.digest()] = round(verdict.p_fake, 5)
            if verdict.is_sure and (verdict.label == "FAKE") != example["is_fake"]:
                example["wrong"].append(place.name)
    write_json(folder / "expected.json", {"models": names, "examples": examples})


def _photographs(folder: Path) -> Iterator[dict[str, Any]]:
    import skimage

    for name, (title, origin) in _PHOTOGRAPHS.items():
        (folder / name).write_bytes((Path(skimage.__file__).parent / "data" / name).read_bytes())
        yield {"file": name, "title": title, "origin": origin, "is_fake": False, "group": "today"}


def _demo_examples(folder: Path) -> Iterator[dict[str, Any]]:
    from datasets import Image

    from realfake_hf.data.loading import load_images
    from realfake_hf.labels import FAKE

    rows = {row["id"]: row for row in load_images("demo")["test"].cast_column("image", Image(decode=False))}
    for name, (id_, title, group) in _DEMO.items():
        row = rows[id_]
        (folder / name).write_bytes(row["image"]["bytes"])
        yield {
            "file": name,
            "title": title,
            "origin": "this project's demo data",
            "is_fake": row["label"] == FAKE,
            "group": group,
        }


@command(SpaceArguments, name="space", description=__doc__)
def main(arguments: SpaceArguments) -> None:
    """Write the generated files of the Space."""
    from realfake_hf.hub.push import ARCHIVE, write_package

    space, page = arguments.space, arguments.space / "measured.md"
    write_package(space / ARCHIVE)
    write_text(space / "requirements.txt", requirements(arguments.lock))
    write_json(space / "measured.json", measured(arguments.results))
    write_examples(space / "examples", space / "models")
    write_text(page, insert_tables(page.read_text(encoding="utf-8"), arguments.results))


if __name__ == "__main__":
    sys.exit(main())
