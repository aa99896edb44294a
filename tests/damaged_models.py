"""Ways in which the folder of a model breaks: files that are cut or replaced, single wrong values, wrong tensors."""

import json
import math
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
POINT, FAMILIARITY = "operating_point.json", "familiarity.safetensors"
FILES = (CONFIG, PROCESSOR, WEIGHTS, POINT, FAMILIARITY)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"

Damage = Callable[[Path], None]

CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "pointer": POINTER,
    "[]": b"[]",
    "null": b"null",
    "text": b'"text"',
    "number": b"1",
    "NaN": b"NaN",
    "not UTF-8": b'{"\xff\xfe": 1}',
    "zeros": bytes(4096),
    "a page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "UTF-16": json.dumps({"threshold": 0.5}).encode("utf-16"),
    "nested": b"[" * 100_000,
    "two values": b"{} {}",
}
KEYS: dict[str, dict[str, list[Any]]] = {
    CONFIG: {
        "model_type": [None, 5, "", "nonsense", "bert", "vit", "resnet", []],
        "image_size": [None, "32", 0, -1, 1.5, [], 64, 16],
        "num_filters": [None, "4", 0, -4, 5],
        "id2label": ["REAL", {}, {"0": "REAL"}, {"a": "REAL", "b": "FAKE"}, {"0": 0, "1": 1},
                     {"0": "REAL", "1": "REAL"}, {"0": "cat", "1": "dog"}, {"0": None, "1": None},
                     {"0": "REAL", "7": "FAKE"}, {"0": "REAL", "1": "FAKE", "2": "OTHER"}],
        "problem_type": ["regression", "multi_label_classification", "nonsense", 5],
        "architectures": ["nonsense", 5],
        "dtype": ["float99", 5, "int64", "bool"],
        "quantization_config": [{"quant_method": "bitsandbytes"}, {"quant_method": "nonsense"}, "nonsense", 5],
    },
    PROCESSOR: {
        "image_processor_type": [5, [], "Nonsense", "AutoConfig", "AutoProcessor", "ViTForImageClassification"],
        "size": [5, "x", [], {}, {"height": 0, "width": 0}, {"height": -32, "width": 32},
                 {"height": "32", "width": "32"}, {"height": 33, "width": 33}],
        "image_mean": ["x", [], [0.5, 0.5], [None] * 3, {}],
        "image_std": ["x", [], [0, 0, 0], [None] * 3, [math.nan] * 3],
        "rescale_factor": ["x", [], math.inf, math.nan],
        "resample": ["x", 99, []],
    },
    POINT: {
        "threshold": [None, "0.5", [], True, 2, -1, math.nan, math.inf],
        "chosen": [None, 5],
        "n": [None, "5", 1.5],
        "sha256": [5, []],
        "temperature": ["x", 0, -1, math.nan, []],
        "band": [5, "x", [], {}, {"low": 1, "high": 0, "promised": 0.1}, {"low": None, "high": 1, "promised": 0.1}],
    },
}  # fmt: skip
HARMLESS = {  # transformers ignores these values, and the verdict is that of the intact model
    "config.json: id2label = {}", "config.json: architectures = 'nonsense'", "config.json: architectures = 5",
    "config.json: quantization_config = {'quant_method': 'bitsandbytes'}",
    "config.json: quantization_config = {'quant_method': 'nonsense'}",
}  # fmt: skip
OPTIONAL = {f"{POINT}: missing", f"{FAMILIARITY}: missing"}  # a model need not have these files


def damages() -> Iterator[tuple[str, Damage]]:
    """Yield the name of each damage, and the function that does it to a folder."""
    yield from _damaged_files()
    for file, keys in KEYS.items():
        for key, values in keys.items():
            for value in values:
                yield f"{file}: {key} = {value!r}", partial(_set, file, key, value)
    yield from _damaged_tensors()


def _damaged_files() -> Iterator[tuple[str, Damage]]:
    for file in FILES:
        yield f"{file}: missing", partial(_remove, file)
        yield f"{file}: a folder", partial(_make_folder, file)
        yield f"{file}: a broken link", partial(_break_link, file)
        for share in (0.02, 0.25, 0.5, 0.75, 0.97):
            yield f"{file}: cut at {share:.0%}", partial(_cut, file, share)
        for name, content in CONTENTS.items():
            yield f"{file}: {name}", partial(_write, file, content)
        if file.endswith(".json"):
            yield f"{file}: {{}}", partial(_write, file, b"{}")


def _damaged_tensors() -> Iterator[tuple[str, Damage]]:
    for file, names in ((WEIGHTS, ("output.weight", "features.0.bias")), (FAMILIARITY, ("means", "precision"))):
        for name in names:
            for change, function in TENSORS.items():
                yield f"{file}: {name} {change}", partial(_change, file, name, function)
        for name, header in HEADERS.items():
            yield f"{file}: header {name}", partial(_write, file, header)
    yield f"{WEIGHTS}: another file", lambda folder: _write(WEIGHTS, (folder / FAMILIARITY).read_bytes(), folder)


def _header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


HEADERS = {
    "longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "of no length": struct.pack("<Q", 0),
    "without JSON": struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
    "without tensors": _header({}),
    "beyond the end": _header({"output.weight": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 324]}}),
    "of an unknown type": _header({"output.weight": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "with other sizes": _header({"output.weight": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, bytes(4)),
}
TENSORS: dict[str, Callable[[dict[str, torch.Tensor], str], None]] = {
    "missing": lambda tensors, name: _drop(tensors, name),
    "renamed": lambda tensors, name: tensors.update({f"{name}_": tensors.pop(name)}),
    "NaN": lambda tensors, name: _fill(tensors, name, math.nan),
    "infinite": lambda tensors, name: _fill(tensors, name, math.inf),
    "-infinite": lambda tensors, name: _fill(tensors, name, -math.inf),
    "of more rows": lambda tensors, name: tensors.update({name: torch.cat([tensors[name]] * 2)}),
    "of no rows": lambda tensors, name: tensors.update({name: tensors[name][:0]}),
    "flat": lambda tensors, name: tensors.update({name: tensors[name].reshape(-1, 1, 1)}),
}


def _drop(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def _fill(tensors: dict[str, torch.Tensor], name: str, value: float) -> None:
    tensors[name].view(-1)[0] = value


def _change(file: str, name: str, function: Callable[[dict[str, torch.Tensor], str], None], folder: Path) -> None:
    with safe_open(folder / file, framework="pt") as stream:
        metadata = stream.metadata()
    tensors = load_file(folder / file)
    function(tensors, name)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / file, metadata=metadata)


def _remove(file: str, folder: Path) -> None:
    (folder / file).unlink()


def _make_folder(file: str, folder: Path) -> None:
    _remove(file, folder)
    (folder / file).mkdir()


def _break_link(file: str, folder: Path) -> None:
    _remove(file, folder)
    (folder / file).symlink_to(folder / "gone")


def _cut(file: str, share: float, folder: Path) -> None:
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: int(len(data) * share)])


def _write(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)


def _set(file: str, key: str, value: object, folder: Path) -> None:
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**settings, key: value}))
