"""Export a model to ONNX, with the packages of the extra `export`.

`python -m realfake_hf.hub.onnx --model_dir space/models/cifake-vit --output_file model.onnx` writes one file, which
maps `pixel_values`, (batch, 3, height, width) float32 as the processor returns them, to `p_fake`, (batch,) in [0, 1],
calibrated by the temperature of the operating point as in `Detector`. Its metadata contain the settings of the
processor and the operating point.

`python -m realfake_hf.hub.onnx --model_dir space/models/wild` writes the graph of a model of several views into its
folder, `model.onnx`, and its settings, for `OnnxDetector`. It refers to the weights in the safetensors files there.
"""

import importlib
import json
import struct
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from realfake_hf.cli import command, setting
from realfake_hf.estimate import to_plain
from realfake_hf.store import write_json

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from realfake_hf.detector import Detector

OPSET: Final = 20
METADATA: Final = "realfake"
_TOLERANCE: Final = 1e-3  # of the probability of a test image
PROCESSOR_SETTINGS: Final = ("resample", "rescale_factor", "image_mean", "image_std", "do_rescale", "do_normalize")


@dataclass
class ExportArguments:
    """The model and the exported file."""

    model_dir: Path = field(metadata={"help": "Output folder of train.py."})
    output_file: Path | None = setting(
        None, "ONNX file; by default model.onnx in the folder of a model of several views."
    )
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

    _check_packages("onnx", "onnxscript", *(["onnxruntime"] if int8 else []))
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


def export_views(folder: Path) -> Path:
    """Write the graph of a model of several views into its folder, and return the path.

    Raises:
        OSError: the model does not exist.
        ValueError: the model has no several views, a package is not installed, or the graph scores a test image
            differently.
    """
    from realfake_hf.detector import Detector
    from realfake_hf.models import views
    from realfake_hf.models.multiview import MultiViewForImageClassification
    from realfake_hf.onnx_detector import GRAPH, SETTINGS, OnnxDetector

    _check_packages("onnx", "onnxscript", "onnxruntime")
    detector = Detector.from_pretrained(folder)
    model: Any = detector.model
    processor: Any = detector.processor
    if not isinstance(model, MultiViewForImageClassification):
        raise ValueError(f"expected a model of several views in {folder}; found another one. Name an --output_file.")
    settings = {
        "fake": detector.fake,
        "size": processor.size["height"],
        "positions": views._POSITIONS[: processor.n_windows],
        "image_mean": processor.image_mean,
        "image_std": processor.image_std,
    }
    graph = _trace_views(model, 1 + processor.n_windows, settings["size"])
    settings["weights"] = sorted(_refer_to_weights(graph, folder))
    write_json(folder / SETTINGS, settings)
    file = folder / GRAPH
    file.write_bytes(graph.SerializeToString())
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(300, 400, 3), dtype=np.uint8))
    [expected], [found] = detector.predict(image), OnnxDetector(folder).predict([image])
    if abs(expected.p_fake - found.p_fake) > _TOLERANCE:
        raise ValueError(
            f"expected the probability {expected.p_fake} of a test image; found {found.p_fake} by {file}."
        )
    return file


def _export(detector: "Detector", size: tuple[int, int]) -> Any:  # noqa: ANN401 - torch.onnx.ONNXProgram
    import torch

    from realfake_hf.attribution.layout import attention_function

    pixels = torch.zeros(2, 3, size[1], size[0])
    with attention_function(detector.model, "eager"), warnings.catch_warnings():
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


def _trace_views(model: "PreTrainedModel", n_views: int, size: int) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """Trace a model from the pixels of the views of one image, (views, 3, size, size), to scores and an embedding."""
    import torch
    from torch import Tensor, nn

    from realfake_hf.attribution.layout import attention_function

    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _with_stored_weights(model)

        def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
            network: Any = self.model
            features = network.features(pixel_values)[None]
            embedding = network.window[:-1](features[:, 1:]).mean(1)
            return network.view_scores(features)[0], embedding[0]

    with attention_function(model, "eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within torch.onnx
        program = torch.onnx.export(
            Views().eval(), (torch.zeros(n_views, 3, size, size),), dynamo=True, opset_version=OPSET, optimize=False,
            input_names=["pixel_values"], output_names=["view_scores", "window_embedding"], verbose=False,
        )  # fmt: skip
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with paths of this machine
    return program.model_proto


def _with_stored_weights(model: "nn.Module") -> "nn.Module":
    """Return a copy of a model whose 8-bit layers unpack their weights in the graph."""
    import copy

    from torch import Tensor, nn

    from realfake_hf.models.multiview import Int8Linear

    class Unpacking(nn.Module):
        def __init__(self, packed: Int8Linear) -> None:
            super().__init__()
            for name, values in packed.named_buffers():
                self.register_buffer(name, values)

        def forward(self, input: Tensor) -> Tensor:
            weight, scale, bias = (self.get_buffer(name) for name in ("weight", "scale", "bias"))
            return nn.functional.linear(input, weight.float() * scale, bias)

    duplicate = copy.deepcopy(model)
    for name, module in list(duplicate.named_modules()):
        if isinstance(module, Int8Linear):
            duplicate.set_submodule(name, Unpacking(module))
    return duplicate


def _refer_to_weights(graph: Any, folder: Path) -> Iterator[str]:  # noqa: ANN401 - onnx.ModelProto
    """Replace the weights of a graph by references to the safetensors files of the model, and yield their names."""
    from onnx import TensorProto

    from realfake_hf.onnx_detector import PREFIX

    places = dict(_places_of_weights(folder))
    for tensor in graph.graph.initializer:
        name = tensor.name.removeprefix(PREFIX)
        if name in places:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in places[name].items():
                tensor.external_data.add(key=key, value=value)
            yield name


def _places_of_weights(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name of each weight, and the file, first byte and number of bytes of its values."""
    for file in sorted(folder.glob("model*.safetensors")):
        with file.open("rb") as stream:
            [length] = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, about in header.items():
            if name != "__metadata__":
                start, end = about["data_offsets"]
                yield name, {"location": file.name, "offset": str(8 + length + start), "length": str(end - start)}


def _check_packages(*names: str) -> None:
    for name in names:
        if find_spec(name) is None:
            raise ValueError(f"expected the package {name}; found none. Install realfake-hf[export].")


@command(ExportArguments, name="export", description=__doc__)
def main(arguments: ExportArguments) -> None:
    """Export a model, and print its inputs and outputs."""
    if arguments.output_file is None:
        print(f"{export_views(arguments.model_dir)}: the graph of {arguments.model_dir} for ONNX Runtime")
        return
    size = export(arguments.model_dir, arguments.output_file, int8=arguments.int8)["size"]
    print(f"{arguments.output_file}: pixel_values (batch, 3, {size['height']}, {size['width']}) to p_fake")


if __name__ == "__main__":
    sys.exit(main())
