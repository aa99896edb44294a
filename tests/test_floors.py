"""Imports point downward, files and functions are short, and importing a module changes nothing."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "realfake_hf"
ROOMS = (  # from the lowest floor to the highest
    ("console",),
    ("cli", "environment", "estimate", "labels", "network", "parallel", "places", "sampling", "store", "tables"),
    ("attribution", "data", "distributed", "figures", "metrics"),
    ("models", "pages", "run_folder", "wording"),
    ("detector", "onnx_detector"),
    ("check", "crosseval", "explain", "explain_study", "score"),
    ("training",),
    ("experiments", "hub"),
    ("__main__", "commands"),
)
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS, start=1) for room in rooms}
FORBIDDEN = {  # file or room -> packages that it must not import
    "": {"gradio", "train", "explain", "crosseval", "benchmarks", "space", "tests", "tools"},
    "metrics": {"torch", "transformers"},
    "attribution/attention": {"transformers"},
    "figures": {"torch", "transformers"},
}
ALONE = {  # file -> the only packages that it may import beside the standard library
    "labels": set(),
    "models/cifake_cnn": {"torch", "transformers"},
}
REGISTERS = {"models/__init__"}  # with the Auto* classes of transformers, before a model is loaded
MAX_FILE = 450  # lines
MAX_FUNCTION = 40  # lines, without the docstring
SOURCES = sorted(
    file
    for place in ("realfake_hf", "benchmarks", "space", "tools", "*.py")
    for file in ROOT.parent.glob(place if place.endswith(".py") else f"{place}/**/*.py")
)
FILES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))
MODULES = [name for name in FILES if name != "__init__"]  # the package itself may name every floor


def tree_of(name):
    return ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))


def imports_of(name):
    """Full dotted names of everything that a file imports, also inside functions."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}.py: expected absolute imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def project_imports_of(name):
    """The files of the project that a file imports, such as `data/pixels`."""
    for dotted in imports_of(name):
        package, *words = dotted.split(".")
        if package == ROOT.name:
            ends = ("/".join(words[:end]) for end in range(len(words), -1, -1))
            yield next(file for end in ends for file in (end, f"{end}/__init__".lstrip("/")) if file in FILES)


def room_of(name):
    return name.split("/")[0]


def floor_of(name):
    return FLOORS[room_of(name)]


def within(name, place):
    return place in ("", name) or name.startswith(f"{place}/")


def test_every_room_has_a_floor_and_every_floor_names_rooms_that_exist():
    assert {room_of(name) for name in MODULES} == set(FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_strictly_downward_or_stay_inside_the_room(name):
    for other in project_imports_of(name):
        lower = other != "__init__" and floor_of(other) < floor_of(name)
        same_room = room_of(other) == room_of(name)
        assert lower or same_room, f"{name}.py imports {other}"


def test_imports_form_no_circle():
    left = {name: set(project_imports_of(name)) - {name} for name in FILES}
    while left:
        leaves = {name for name, needs in left.items() if not needs & left.keys()}
        assert leaves, f"a circle among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in leaves}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT.parent).as_posix())
def test_files_and_functions_stay_short(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_FILE
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert {node.name: n_lines(node) for node in functions if n_lines(node) > MAX_FUNCTION} == {}


def n_lines(function):
    """Lines of a function without its docstring."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return function.end_lineno - function.lineno + 1 - docstring


@pytest.mark.parametrize("place", FORBIDDEN)
def test_a_room_does_not_import_what_is_forbidden(place):
    packages = {dotted.split(".")[0] for name in FILES if within(name, place) for dotted in imports_of(name)}
    assert not packages & FORBIDDEN[place]


@pytest.mark.parametrize("name", ALONE)
def test_a_file_that_stands_alone_imports_nothing_else(name):
    packages = {dotted.split(".")[0] for dotted in imports_of(name)}
    assert packages - set(sys.stdlib_module_names) == ALONE[name]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in REGISTERS])
def test_a_module_only_defines_names(name):
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef, ast.If)
    for node in tree_of(name).body[1:]:
        assert isinstance(node, allowed) or _prepares_own(node, tree_of(name)), f"{name}.py, line {node.lineno}"
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING"), f"{name}.py, {node.lineno}"


def _prepares_own(node, tree):
    """Whether a statement only calls a method of a class that is defined in the same file."""
    own = {other.name for other in tree.body if isinstance(other, ast.ClassDef)}
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[0] in own


IMPORT_ALL = """
import importlib, json, logging, os, random, sys, warnings
import accelerate, datasets, evaluate, matplotlib.figure, numpy, torch, transformers, transformers.trainer
import sklearn.calibration  # whose progress bar draws from random

def state():
    return {
        "handlers": len(logging.root.handlers),
        "level": logging.root.level,
        "of transformers": [transformers.utils.logging.get_verbosity(), datasets.logging.get_verbosity()],
        "environment": dict(os.environ),
        "seeds": [torch.initial_seed(), str(random.getstate()), str(numpy.random.get_state())],
        "drawn": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "working folder": os.getcwd(),
        "figures": dict(matplotlib.rcParams) | {"backend": None},
    }

before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""


@pytest.mark.slow
def test_importing_changes_nothing_and_prints_nothing():
    names = ["realfake_hf.training.run", "realfake_hf.detector", "realfake_hf.cli"]
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, *names]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(process.stdout) == []
    assert process.stderr == ""
