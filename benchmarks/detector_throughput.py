"""How fast a list of files is judged: `Detector`, `pipeline` picture by picture, and ONNX with and without 8 bits.

`python -m benchmarks.detector_throughput --output_file results/benchmark_detector.json`
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from datasets import Dataset, Image
from numpy.typing import NDArray
from transformers import pipeline
from transformers.utils.logging import disable_progress_bar

from benchmarks.comparison import Comparison, Pair, measure_in_turn, refuse_in_vain, write_benchmark
from realfake_hf.cli import parse, read_names
from realfake_hf.crosseval.datasets import draw_from, load_test_set
from realfake_hf.data.decoding import decode_image
from realfake_hf.data.pixels import Normalize, resize_images
from realfake_hf.detector import Detector
from realfake_hf.hub.onnx import export
from realfake_hf.parallel import available_cores

DETECTOR: Final = "Detector"
PIPELINE: Final = "pipeline, one by one"
ONNX: Final = "onnxruntime"
INT8: Final = "onnxruntime, int8"
BATCH: Final = 32


@dataclass
class Settings:
    """How much is measured."""

    models: list[str] = field(
        default_factory=lambda: ["cnn=space/models/cifake-cnn", "vit=space/models/cifake-vit"],
        metadata={"help": "NAME=FOLDER of the models."},
    )
    data: str = field(default="cifake", metadata={"help": "Whose test pictures."})
    n: int = field(default=1000, metadata={"help": "Files in the list."})
    accuracy_n: int | None = field(default=None, metadata={"help": "Test pictures for accuracies; all by default."})
    rounds: int = field(default=3, metadata={"help": "How often each way is measured, in turn."})
    output_file: Path = field(
        default=Path("results/benchmark_detector.json"), metadata={"help": "Where the JSON goes."}
    )


class OnnxDetector:
    """What someone writes around an exported file, with this project's way from files to pixels."""

    def __init__(self, file: Path, detector: Detector) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cores()
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._processor, self._normalize = detector.processor, Normalize(detector.processor)

    def probabilities(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        """Give (n,) `p_fake` of RGB pictures."""
        import torch

        batches = (pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH))
        found = []
        for batch in batches:
            pixels = self._normalize(torch.from_numpy(resize_images(batch, self._processor))).contiguous().numpy()
            found += self._session.run(["p_fake"], {"pixel_values": pixels})
        return np.concatenate(found)

    def files(self, files: Sequence[str]) -> NDArray[np.float32]:
        """Give (n,) `p_fake` of files."""
        return self.probabilities([decode_image(Path(file).read_bytes()) for file in files])


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, print the tables; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    try:
        refuse_in_vain(settings.output_file, rounds=settings.rounds)
        places = read_names("--models", settings.models, kind="FOLDER")
        whole = load_test_set("data", settings.data, limit=settings.accuracy_n, seed=0)
    except (OSError, ValueError) as error:
        print(f"detector_throughput: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        files = _written(draw_from(whole, settings.n, seed=0).rows, Path(folder))
        ways: dict[str, Callable[[], float]] = {}
        cost: dict[str, Any] = {}
        for name, place in places.items():
            detector = Detector.from_pretrained(place, batch_size=BATCH)
            exported = [
                _exported(place, Path(folder) / f"{name}-{int8}.onnx", detector, int8=int8) for int8 in (False, True)
            ]
            ways |= _ways(name, place, detector, exported, files)
            cost[name] = _cost(detector, exported, whole)
        taken = measure_in_turn(ways, rounds=settings.rounds)
    pairs = [Pair(f"{name} {DETECTOR}", f"{name} {PIPELINE}", goal=3) for name in places]
    pairs += [Pair(f"{name} {way}", f"{name} {DETECTOR}") for name in places for way in (ONNX, INT8)]
    found = Comparison("files/s", taken, pairs)
    facts = {"n": len(files), "n_accuracy": len(whole.rows), "exported": cost}
    write_benchmark(settings.output_file, settings=asdict(settings), results={**facts, **found.to_dict()})
    print(found.to_markdown())
    return 0


def _written(rows: Dataset, folder: Path) -> list[str]:
    files = []
    for place, row in enumerate(rows.cast_column("image", Image(decode=False))):
        files.append(str(folder / f"{place}.jpg"))
        Path(files[-1]).write_bytes(row["image"]["bytes"])
    return files


def _exported(place: str, file: Path, detector: Detector, *, int8: bool) -> OnnxDetector:
    export(Path(place), file, int8=int8)
    return OnnxDetector(file, detector)


def _ways(
    name: str, place: str, detector: Detector, exported: Sequence[OnnxDetector], files: Sequence[str]
) -> dict[str, Callable[[], float]]:
    pipe = pipeline("image-classification", model=place, trust_remote_code=True)
    calls: dict[str, Callable[[], Any]] = {
        DETECTOR: partial(detector.predict, files),
        PIPELINE: lambda: [pipe(file) for file in files],
        ONNX: partial(exported[0].files, files),
        INT8: partial(exported[1].files, files),
    }
    return {f"{name} {way}": partial(_rate, call, len(files)) for way, call in calls.items()}


def _rate(call: Callable[[], Any], n: int) -> float:
    began = time.perf_counter()
    call()
    return n / (time.perf_counter() - began)


def _cost(detector: Detector, exported: Sequence[OnnxDetector], whole: Any) -> dict[str, Any]:  # noqa: ANN401
    """What an export changes: the largest difference of a score, and the accuracy at the model's own threshold."""
    pictures = [one.convert("RGB") for one in whole.rows["image"]]
    exact = detector.probabilities(pictures)
    found: dict[str, Any] = {DETECTOR: {"accuracy": _accuracy(exact, detector, whole)}}
    for way, one in zip((ONNX, INT8), exported, strict=True):
        p_fake = one.probabilities(pictures)
        difference = float(np.abs(p_fake - exact).max())
        found[way] = {"largest_difference": difference, "accuracy": _accuracy(p_fake, detector, whole)}
    return found


def _accuracy(p_fake: NDArray[np.float32], detector: Detector, whole: Any) -> float:  # noqa: ANN401
    return float(((p_fake > detector.point.threshold) == whole.is_fake).mean())


if __name__ == "__main__":
    sys.exit(main())
