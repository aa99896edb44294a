"""Export a model to ONNX.

`python -m realfake_hf.hub.onnx --model_dir space/models/cifake-vit --output_file model.onnx` requires the extra
`export`. The exported model maps `pixel_values`, (batch, 3, height, width) float32 as the processor returns them, to
`p_fake`, (batch,) in [0, 1], calibrated by the temperature of the operating point as in `Detector`. Its metadata
contain the settings of the processor and the operating point.
"""

import importlib
import json
import sys
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from realfake_hf.cli import command, setting
from realfake_hf.estimate import to_plain

if TYPE_CHECKING:
    from torch import nn

    from realfake_hf.detector import Detector

OPSET: Final = 20
METADATA: Final = "realfake"
PROCESSOR_SETTINGS: Final = ("resample", "rescale_factor", "image_mean", "image_std", "do_rescale", "do_normalize")


@dataclass
class ExportArguments:
    """The model and the exported file."""

    model_dir: Path = field(metadata={"help": "Output folder of train.py."})
    output_file: Path = field(metadata={"help": "ONNX file."})
    int8: bool = setting(False, "Quantise the weights of linear layers to 8 bits.")


def export(folder: Path, file: Path, *, int8: bool = False) -> dict[str, Any]:
    """Export the model in an output folder of `train.py` to an ONNX file, and return its metadata.

    With `int8`, weights and, dynamically, activations of linear layers are quantised to 8 bits.

    Raises:
        OSError: the model does not exist.
        ValueError: the processor crops or pads, or a package is not installed.
    """
    from realfake_hf.data.pixels import resize_target
    from realfake_hf.detector import Detector

    for name in ("onnx", "onnxscript", "onnxruntime") if int8 else ("onnx", "onnxscript"):
        if find_spec(name) is None:
            raise ValueError(f"expected the package {name}; found none. Install realfake-hf[export].")
    detector = Detector.from_pretrained(folder)
    size = resize_target(detector.processor)
    if size is None:
        raise ValueError(f"expected a processor that only resizes, to export {folder}; found one that crops or pads.")
    processor = detector.processor.to_dict()
    metadata = {
        "size": {"width": size[0], "height": size[1]},
        **{name: processor.get(name) for name in PROCESSOR_SETTINGS},
        "operating_point": to_plain(detector.point),
        "weights": detector.digest(),
        "int8": int8,
    }
    program = _export(detector, size)
    program.model.metadata_props[METADATA] = json.dumps(metadata)
    file.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(file), external_data=False)
    if int8:
        quantization = importlib.import_module("onnxruntime.quantization")
        weights, operations = quantization.QuantType.QInt8, ["MatMul", "Gemm"]
        quantization.quantize_dynamic(str(file), str(file), weight_type=weights, op_types_to_quantize=operations)
    return metadata


def _export(detector: "Detector", size: tuple[int, int]) -> Any:  # noqa: ANN401 - torch.onnx.ONNXProgram
    import torch

    from realfake_hf.attribution.layout import eager_attention

    pixels = torch.zeros(2, 3, size[1], size[0])
    with eager_attention(detector.model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within torch.onnx
        program = torch.onnx.export(
            _probability_model(detector), (pixels,), dynamo=True, opset_version=OPSET, input_names=["pixel_values"],
            output_names=["p_fake"], dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},), verbose=False,
        )  # fmt: skip
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with paths of this machine
    return program


def _probability_model(detector: "Detector") -> "nn.Module":
    """Return a module from pixel values, (batch, 3, height, width), to the calibrated `p_fake`, (batch,)."""
    from torch import Tensor, nn

    temperature = detector.point.temperature or 1.0

    class Probability(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = detector.model

        def forward(self, pixel_values: Tensor) -> Tensor:
            logits = self.model(pixel_values=pixel_values).logits.float() / temperature
            return logits.softmax(dim=-1)[:, detector.fake]  # type: ignore[no-any-return]

    return Probability().eval()


@command(ExportArguments, name="export", description=__doc__)
def main(arguments: ExportArguments) -> None:
    """Export a model, and print its inputs and outputs."""
    size = export(arguments.model_dir, arguments.output_file, int8=arguments.int8)["size"]
    print(f"{arguments.output_file}: pixel_values (batch, 3, {size['height']}, {size['width']}) to p_fake")


if __name__ == "__main__":
    sys.exit(main())
