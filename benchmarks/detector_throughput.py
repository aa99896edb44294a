"""Speed of predicting a list of files: `Detector`, `pipeline` image by image, and ONNX in float32 and int8.

`python -m benchmarks.detector_throughput --output_file results/benchmark_detector.json`
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from benchmarks.comparison import (
    Pair,
    compare,
    images_per_second,
    measure_in_turn,
    number_of_rounds,
    report,
    results_file,
    run_benchmark,
    save_images,
)
from realfake_hf.cli import read_names
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from realfake_hf.crosseval.datasets import EvalDataset
    from realfake_hf.detector import Detector

DETECTOR: Final = "Detector"
PIPELINE: Final = "pipeline, one by one"
EXPORTS: Final = {"onnxruntime": False, "onnxruntime, int8": True}  # by way: whether it is quantized
BATCH: Final = 32


@dataclass
class Settings:
    """What to predict, and how often."""

    models: list[str] = field(
        default_factory=lambda: ["cnn=space/models/cifake-cnn", "vit=space/models/cifake-vit"],
        metadata={"help": "NAME=FOLDER of trained models."},
    )
    data: str = field(default="cifake", metadata={"help": "Data source of the test images."})
    n: int = field(default=1000, metadata={"help": "Files in the list."})
    accuracy_n: int | None = field(
        default=None, metadata={"help": "Test images that accuracy is computed on; all by default."}
    )
    rounds: int = number_of_rounds(3)
    output_file: Path = results_file("benchmark_detector")


class OnnxDetector:
    """An exported model in onnxruntime, with this project's decoding and preprocessing.

    Args:
        file: the exported model.
        detector: the model that was exported.
    """

    def __init__(self, file: Path, detector: "Detector") -> None:
        import onnxruntime

        from realfake_hf.data.pixels import Normalize
        from realfake_hf.parallel import available_cores

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cores()
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._processor, self._normalize = detector.processor, Normalize(detector.processor)

    def probabilities(self, images: Sequence[Any]) -> "NDArray[np.float32]":
        """Return (n,) `p_fake` of RGB images."""
        import numpy as np
        import torch

        from realfake_hf.data.pixels import resize_images

        p_fake = []
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(resize_images(images[start : start + BATCH], self._processor))
            p_fake += self._session.run(["p_fake"], {"pixel_values": self._normalize(pixels).contiguous().numpy()})
        return np.concatenate(p_fake)

    def predict_files(self, files: Sequence[str]) -> "NDArray[np.float32]":
        """Return (n,) `p_fake` of files."""
        from realfake_hf.data.decoding import decode_image

        return self.probabilities([decode_image(Path(file).read_bytes()) for file in files])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="detector_throughput", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Time every way, and compute what an export changes."""
    from realfake_hf.crosseval.datasets import load_dataset, sample_leak_free
    from realfake_hf.detector import Detector
    from realfake_hf.hub.onnx import export

    models = read_names("--models", settings.models, kind="FOLDER")
    test_set = load_dataset("data", settings.data, limit=settings.accuracy_n, seed=0)
    ways: dict[str, Callable[[], float]] = {}
    exported: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = save_images(sample_leak_free(test_set, settings.n, seed=0).rows, Path(folder) / "images")
        for name, place in models.items():
            detector = Detector.from_pretrained(place, batch_size=BATCH)
            onnx = {}
            for way, int8 in EXPORTS.items():
                file = Path(folder) / f"{name}-{int8}.onnx"
                export(Path(place), file, int8=int8)
                onnx[way] = OnnxDetector(file, detector)
            ways |= {f"{name} {way}": call for way, call in _ways(place, detector, onnx, files).items()}
            exported[name] = _effects_of_export(detector, onnx, test_set)
        values = measure_in_turn(ways, rounds=settings.rounds)
    pairs = [Pair(f"{name} {DETECTOR}", f"{name} {PIPELINE}", goal=3) for name in models]
    pairs += [Pair(f"{name} {way}", f"{name} {DETECTOR}") for name in models for way in EXPORTS]
    facts = {"n": len(files), "n_accuracy": len(test_set.rows), "exported": exported}
    return {**facts, **compare(values, pairs, unit="files/s")}


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the speeds, and the accuracy of each model before and after export."""
    rows = [
        [f"{model} {way}", f"{row['accuracy']:.2%}", f"{row['largest_difference']:.2g}" if way != DETECTOR else ""]
        for model, ways in content["exported"].items()
        for way, row in ways.items()
    ]
    header = ["way", f"test accuracy (n = {content['n_accuracy']:,})", "largest difference of p_fake"]
    note = f"Lists of {content['n']:,} files, in batches of {BATCH} where not one by one."
    return report(content, markdown_table(header, rows), note=note)


def _ways(
    place: str, detector: "Detector", onnx: Mapping[str, OnnxDetector], files: Sequence[str]
) -> dict[str, Callable[[], float]]:
    from transformers import pipeline

    pipe = pipeline("image-classification", model=place, trust_remote_code=False)
    calls: dict[str, Callable[[Sequence[str]], object]] = {
        DETECTOR: detector.predict,
        PIPELINE: lambda files: [pipe(file) for file in files],
        **{way: model.predict_files for way, model in onnx.items()},
    }
    return {way: partial(images_per_second, call, files) for way, call in calls.items()}


def _effects_of_export(
    detector: "Detector", onnx: Mapping[str, OnnxDetector], test_set: "EvalDataset"
) -> dict[str, dict[str, float]]:
    """Return for each way the accuracy at the model's threshold, and the largest difference of a probability."""
    import numpy as np

    images = [row["image"].convert("RGB") for row in cast("Dataset", test_set.rows)]
    p_fake = {DETECTOR: detector.probabilities(images)}
    p_fake |= {way: model.probabilities(images) for way, model in onnx.items()}
    effects = {
        way: {
            "largest_difference": float(np.abs(values - p_fake[DETECTOR]).max()),
            "accuracy": float(((values > detector.point.threshold) == test_set.is_fake).mean()),
        }
        for way, values in p_fake.items()
    }
    del effects[DETECTOR]["largest_difference"]
    return effects


if __name__ == "__main__":
    sys.exit(main())
