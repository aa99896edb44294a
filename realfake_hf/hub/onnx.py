"""Export a model to ONNX, for whoever runs it without torch.

`python -m realfake_hf.hub.onnx --model_dir space/models/cifake-vit --output_file model.onnx` wants the extra
`export`. The file takes `pixel_values`, (batch, 3, height, width) float32 as the processor gives them, and gives
`p_fake`, (batch,) in [0, 1]. Its metadata say how pictures become pixel values and above which probability they are
called FAKE.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from realfake_hf.attribution.attention_methods import eager_attention
from realfake_hf.cli import parse
from realfake_hf.data.pixels import resize_target
from realfake_hf.detector import Detector

OPSET: Final = 20
METADATA: Final = "realfake"


@dataclass
class ExportArguments:
    """Which model, and where it goes."""

    model_dir: Path = field(metadata={"help": "A folder of train.py, or one of space/models."})
    output_file: Path = field(metadata={"help": "The ONNX file."})
    int8: bool = field(default=False, metadata={"help": "Quantise the weights of linear layers to 8 bits."})


class _Probability(nn.Module):
    def __init__(self, model: Any, fake: int) -> None:  # noqa: ANN401 - any of transformers' classes
        super().__init__()
        self.model, self.fake = model, fake

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits = self.model(pixel_values=pixel_values).logits
        return logits.float().softmax(dim=-1)[:, self.fake]  # type: ignore[no-any-return]


def export(folder: Path, file: Path, *, int8: bool = False) -> dict[str, Any]:
    """Write a model as ONNX, and give its metadata.

    Args:
        folder: of train.py, or one of `space/models`.
        file: the ONNX file.
        int8: quantise the weights of linear layers to 8 bits, activations being quantised as they come.

    Raises:
        OSError: there is no such model.
        ValueError: its processor also crops or pads, or onnx is not installed.
    """
    _check_installed("onnx", "onnxscript", *(("onnxruntime",) if int8 else ()))
    detector = Detector.from_pretrained(folder)
    size = resize_target(detector.processor)
    if size is None:
        raise ValueError(f"wanted a processor that only resizes, to export {folder}; found one that crops or pads.")
    file.parent.mkdir(parents=True, exist_ok=True)
    about = _metadata(detector, size, int8=int8)
    whole = _Probability(detector.model, detector.fake).eval()
    pixels = torch.zeros(2, 3, size[1], size[0])
    with eager_attention(detector.model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter about its own parts
        program = torch.onnx.export(
            whole, (pixels,), dynamo=True, opset_version=OPSET, input_names=["pixel_values"], output_names=["p_fake"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},), verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(about)
    program.save(str(file), external_data=False)
    if int8:
        _quantise(file)
    return about


def _metadata(detector: Detector, size: tuple[int, int], *, int8: bool) -> dict[str, Any]:
    numbers = detector.processor.to_dict()
    kept = ("resample", "rescale_factor", "image_mean", "image_std", "do_rescale", "do_normalize")
    return {
        "size": {"width": size[0], "height": size[1]},
        **{name: numbers.get(name) for name in kept},
        "operating_point": detector.point.to_dict(),
        "weights": detector.digest(),
        "int8": int8,
    }


def _quantise(file: Path) -> None:
    quantization = importlib.import_module("onnxruntime.quantization")
    settings = {"weight_type": quantization.QuantType.QInt8, "op_types_to_quantize": ["MatMul", "Gemm"]}
    quantization.quantize_dynamic(str(file), str(file), **settings)


def _check_installed(*names: str) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"wanted {name} to export; found none. Install realfake-hf[export].") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Export; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    [arguments] = parse(ExportArguments, argv=argv, description=__doc__)
    try:
        about = export(arguments.model_dir, arguments.output_file, int8=arguments.int8)
    except (OSError, ValueError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    size = about["size"]
    print(f"{arguments.output_file}: pixel_values (batch, 3, {size['height']}, {size['width']}) to p_fake")
    return 0


if __name__ == "__main__":
    sys.exit(main())
