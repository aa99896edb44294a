import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Literal

import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError
from transformers import TrainingArguments

import crosseval
import explain
import train
from realfake_hf.cli import parse
from realfake_hf.console import run_command
from realfake_hf.data import shards
from realfake_hf.experiments.search.plan import SearchArguments, extractors, heads
from realfake_hf.training.arguments import DataArguments, ModelArguments, names_of_training_arguments
from realfake_hf.training.run_arguments import RunArguments

ROOT = Path(__file__).parents[1]
TRAININGS = sorted(set((ROOT / "recipes").glob("*.yaml")) - {ROOT / "recipes/paper_search.yaml"})
OPENFAKE, FORENSICS, COCO = "ComplexDataLab/OpenFake", "OwensLab/CommunityForensics-Small", "detection-datasets/coco"


@dataclass
class Settings:
    """Settings of the tests."""

    rate: float = field(default=0.1, metadata={"help": "How fast, 100% at most."})
    epochs: int = 3
    name: str = "demo"
    flip: bool = True
    limit: int | None = 5
    words: list[str] = field(default_factory=list)
    extra: dict | str | None = None

    def __post_init__(self):
        if self.epochs < 0:
            raise ValueError(f"wanted epochs of at least 0; found {self.epochs}")


@dataclass
class More:
    """A second dataclass."""

    seed: int = 0


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        file = tmp_path / "recipe.yaml"
        file.write_text(text)
        return ["--config", str(file)]

    return write


def settings_of(*words):
    return parse(Settings, argv=words)[0]


def refusal(capsys, *words):
    """The message after `error:` on stderr, with an exit status of 2 and nothing on stdout."""
    with pytest.raises(SystemExit) as stop:
        parse(Settings, More, argv=words)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.split("error: ", 1)[1].strip()


def test_without_flags_the_defaults_hold():
    assert parse(Settings, More, argv=[]) == (Settings(), More())


def test_a_recipe_wins_over_defaults_and_a_flag_over_the_recipe_in_any_order(recipe):
    words = recipe("rate: 0.2\nepochs: 7\n")
    for order in ([*words, "--epochs", "9"], ["--epochs", "9", *words]):
        settings = settings_of(*order)
        assert (settings.rate, settings.epochs, settings.name) == (0.2, 9, "demo")


def test_a_recipe_fills_several_dataclasses(recipe):
    assert parse(Settings, More, argv=recipe("rate: 1\nseed: 4\n")) == (Settings(rate=1.0), More(seed=4))


def test_the_command_line_is_that_of_the_process_by_default(monkeypatch):
    monkeypatch.setattr("sys.argv", ["program", "--epochs=11"])
    assert parse(Settings)[0].epochs == 11


@pytest.mark.parametrize("written", ["3e-3", "3E-3", "3.0e-3", "0.003", "'3e-3'", ".3e-2", "+3e-3"])
def test_a_recipe_may_write_numbers_in_any_notation(recipe, written):
    assert settings_of(*recipe(f"rate: {written}\nextra: {{rate: {written}}}\n")).rate == 0.003


def test_numbers_inside_a_dictionary_stay_numbers(recipe):
    extra = settings_of(*recipe("extra: {least: 1e-5, cycles: 2, deep: {warm: true}}\n")).extra
    assert json.loads(extra) == {"least": 1e-5, "cycles": 2, "deep": {"warm": True}}


@pytest.mark.parametrize(("written", "expected"), [("true", True), ("false", False), ("yes", True), ("no", False)])
def test_booleans_are_read(recipe, written, expected):
    assert settings_of(*recipe(f"flip: {written}\n")).flip is expected
    assert settings_of("--flip", written).flip is expected


def test_a_flag_without_a_value_is_true_and_its_no_form_is_false():
    assert settings_of("--flip").flip is True
    assert settings_of("--no_flip").flip is False


def test_lists_are_read_from_recipe_and_flags(recipe):
    assert settings_of(*recipe("words: [a, 2, c d]\n")).words == ["a", "2", "c d"]
    assert settings_of("--words", "a", "b").words == ["a", "b"]


def test_null_is_none_and_not_the_default(recipe):
    assert settings_of(*recipe("limit: null\n")).limit is None
    assert settings_of(*recipe("limit:\n"), "--limit", "8").limit == 8


def test_a_value_may_begin_with_a_dash_or_contain_spaces(recipe):
    assert settings_of(*recipe("name: -my pictures\nrate: -2.5e-1\n")) == Settings(name="-my pictures", rate=-0.25)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--epoch", "3"], "unknown setting --epoch; did you mean --epochs?"),
        (["--epoch=3"], "unknown setting --epoch; did you mean --epochs?"),
        (["--confg", "a.yaml"], "unknown setting --confg; did you mean --config?"),
        (["--zzz", "3"], "unknown setting --zzz; --help lists them"),
        (["stray"], "unknown setting stray; --help lists them"),
        (["--rate", "fast"], "argument --rate: invalid float value: 'fast'"),
        (["--epochs", "1.5"], "argument --epochs: invalid int value: '1.5'"),
        (["--epochs", "-1"], "wanted epochs of at least 0; found -1"),
        (["--config"], "argument --config: expected one argument"),
        (["--config", "no/such.yaml"], "expected a YAML recipe at no/such.yaml; found no such file"),
    ],
)
def test_invalid_flags_are_refused_with_a_message(capsys, words, sentence):
    assert refusal(capsys, *words) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch: 3\n", "unknown setting epoch in {file}; did you mean epochs?"),
        ("zzz:\n", "unknown setting zzz in {file}; --help lists them"),
        ("help: true\n", "unknown setting help in {file}; --help lists them"),
        ("1: 2\n", "unknown setting 1 in {file}; --help lists them"),
        ("epochs:\n", "expected a value of epochs in {file}; found none"),
        ("rate: fast\n", "argument --rate: invalid float value: 'fast'"),
        ("rate: {a: 1}\n", "argument --rate: invalid float value: '{{\"a\": 1}}'"),
        ("flip: maybe\n", "argument --flip: Truthy value expected: got maybe"),
        ("- rate\n- epochs\n", "expected lines of `setting: value` in {file}; found a list"),
        ("rate\n", "expected lines of `setting: value` in {file}; found a str"),
        ("# nothing yet\n", "expected lines of `setting: value` in {file}; found nothing"),
        ("rate: [1\n", "expected YAML in {file}; found an error while parsing a flow sequence"),
    ],
)
def test_an_invalid_recipe_is_refused_with_a_message(capsys, recipe, text, sentence):
    words = recipe(text)
    assert refusal(capsys, *words).startswith(sentence.format(file=words[1]))


def test_a_recipe_that_is_not_text_is_refused(capsys, tmp_path):
    file = tmp_path / "picture.yaml"
    file.write_bytes(b"\xff\xd8\xff\xe0")
    assert refusal(capsys, "--config", str(file)).startswith(f"expected YAML in {file}; found an error 'utf-8' codec")


def test_an_error_is_two_lines(capsys):
    with pytest.raises(SystemExit):
        parse(RunArguments, argv=["--lerning_rate", "1"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("usage: ")
    assert lines[1].endswith("unknown setting --lerning_rate; did you mean --learning_rate?")


def help_of(capsys, *dataclass_types, description=None):
    """The text of `--help`, with an exit status of 0, and its groups as lines by title, each setting a line."""
    with pytest.raises(SystemExit) as stop:
        parse(*dataclass_types, argv=["--help"], description=description)
    assert stop.value.code == 0
    text = capsys.readouterr().out
    groups = {}
    for title, _, lines in (part.partition(":\n") for part in text.split("\n\n")):
        if lines:
            entries = re.sub(
                r"\n {4,}", "  ", lines
            ).splitlines()  # a text that begins or goes on in a line of its own
            groups[title] = [re.sub(r" {2,}", " ", entry.strip()) for entry in entries]
    return text, groups


def test_help_names_the_command_of_realfake(capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("realfake_hf.__main__", None))
    monkeypatch.setattr(sys, "argv", ["realfake train"])
    assert help_of(capsys, Settings)[0].startswith("usage: realfake train [--config FILE]")
    monkeypatch.setattr(sys, "argv", ["realfake_hf/__main__.py"])
    assert help_of(capsys, Settings)[0].startswith("usage: python -m realfake_hf [--config FILE]")


def test_help_lists_settings_in_one_spelling_with_true_defaults(capsys):
    text, groups = help_of(capsys, Settings, description="Do it.\n\nAgain.")
    assert "Do it.\n\nAgain.\n" in text
    assert groups["options"][-2:] == [
        "--config FILE Read settings from a YAML recipe; flags win over it.",
        "--verbose Print the warnings of libraries.",
    ]
    assert groups["Settings of the tests"] == [
        "--rate X How fast, 100% at most. (default: 0.1)",
        "--epochs N (default: 3)",
        "--name TEXT (default: demo)",
        "--flip [true|false] (default: true)",
        "--limit N (default: 5)",
        "--words TEXT [TEXT ...]",
        "--extra TEXT",
    ]


@dataclass
class Common:
    """What commands share. With a second sentence."""

    split_seed: int = 0


@dataclass
class Specific(Common):
    """What is specific."""

    split_seed: int = 1
    place: Path = field(metadata={"help": "Where."}, kw_only=True)
    kind: Literal["a", "b"] = "a"


@dataclass
class Extended(Specific):
    """An extension."""

    names: list[str] = field(default_factory=lambda: ["x", "y"])
    many: Literal["a_long_choice", "another_long_choice", "a_third_one"] = "a_third_one"


def test_help_groups_settings_by_the_dataclass_that_declares_them(capsys):
    _, groups = help_of(capsys, Extended, More)
    assert list(groups) == ["options", "An extension", "A second dataclass", "What is specific"]
    assert groups["What is specific"] == [
        "--split_seed N (default: 1)",
        "--place PATH Where. (required)",
        "--kind {a,b} (default: a)",
    ]
    assert groups["An extension"] == [
        "--names TEXT [TEXT ...] (default: x y)",
        "--many NAME One of a_long_choice, another_long_choice, a_third_one. (default: a_third_one)",
    ]


def test_both_spellings_of_a_setting_are_accepted():
    for word in ("--split_seed", "--split-seed"):
        assert parse(Specific, argv=["--place", "here", word, "7"])[0].split_seed == 7


def test_the_program_is_named_as_it_was_started(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/a/b/train.py"])
    for spec, name in (
        (None, "train.py"),
        (ModuleSpec("a.b.__main__", None), "python -m a.b"),
        (ModuleSpec("a.b", None), "python -m a.b"),
    ):
        monkeypatch.setattr("__main__.__spec__", spec, raising=False)
        assert help_of(capsys, More)[0].startswith(f"usage: {name} [--config FILE]")


def test_the_help_of_training_begins_with_data_model_and_training(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = capsys.readouterr().out
    titles = re.findall(r"^([^-\s].*):$", text, re.MULTILINE)
    assert titles[:4] == ["options", "The data set", "The model", "The training loop and its output"]
    assert max(map(len, text.splitlines())) <= 100
    first = text.partition("The training loop")[0]
    assert "--data TEXT" in first
    assert "--num_filters" not in first


def refusal_of_training(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        train.main(words)
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--epochs", "3"], "unknown setting --epochs"),
        (["--max_stps", "3"], "did you mean --max_steps?"),
        (["--crop_padding", "-1"], "found -1"),
        (["--learning_rate", "fast"], "--learning_rate"),
        (["--streaming", "--train_size", "5"], "--streaming or --train_size"),
        (["--max_steps", "many"], "--max_steps"),
        (["--lr_scheduler_type", "sinus"], "sinus"),
        (["--no_flip", "--no-skip-memory-metrics", "--adam-beta1", "0.8", "--ema_decay", "2"], "--ema_decay"),
    ],
)
def test_training_refuses_a_wrong_setting_of_either_parser(capsys, words, names):
    status, message = refusal_of_training(capsys, *words)
    assert status == 2
    assert names in message


TOKEN = "hf_" + "Secret1" * 5


@pytest.mark.parametrize(
    "words",
    [
        ["--hub_tokn", TOKEN],
        [f"--hub_tokn={TOKEN}"],
        [f"--hub-tokn={TOKEN}", "--push_to_hub"],
        [TOKEN],
        ["--hub_token", "x", TOKEN],
        ["--push_to_hub", TOKEN],
        ["--learning_rate", TOKEN],
        [f"--max_steps={TOKEN}"],
        ["--config", TOKEN],
    ],
)
def test_no_message_repeats_a_token(capsys, words):
    status, message = refusal_of_training(capsys, *words)
    assert status == 2
    assert "Secret1" not in message
    assert "error: " in message


def test_a_full_disk_is_reported_in_one_line_whoever_reports_it(capsys):
    for error in (OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device")):
        assert run_command(partial(fail, error), name="x") == 1
        line = capsys.readouterr().err
        assert line.startswith("x: ")
        assert "No space left on device. Free some disk space" in line
        assert line.count("\n") == 1
    with Path("/dev/full").open("wb", buffering=0) as full:
        assert run_command(lambda: torch.save({"a": torch.zeros(100_000)}, full) or 0, name="x") == 1
    assert "Free some disk space" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="of another kind"):
        run_command(partial(fail, RuntimeError("of another kind")), name="x")


def fail(error):
    raise error


def test_a_second_command_in_the_same_folder_is_refused_or_waits(tmp_path, capsys):
    folder, done = tmp_path / "runs/out", []

    def again(others):
        return run_command(lambda: done.append(others) or 0, name="second", resumable=folder, others=others)

    def first():
        assert again("refused") == 1
        assert again("allowed") == 0
        waiting.submit(again, "awaited")
        time.sleep(0.2)
        assert done == ["allowed"]
        return 0

    with ThreadPoolExecutor(1) as waiting:
        assert run_command(first, name="first", resumable=folder) == 0
    assert done == ["allowed", "awaited"]
    assert f"second: expected no other command that writes to {folder}; found one." in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (train.main, []),
        (crosseval.main, ["--models", "cnn=none", "--datasets", "own=none"]),
        (explain.main, ["--study", "--compare", "cnn=none"]),
        (shards.main, ["--data", "demo"]),
    ],
    ids=["train", "crosseval", "study", "shards"],
)
def test_commands_with_an_output_folder_are_refused_while_another_one_writes_there(tmp_path, capsys, command, words):
    folder = tmp_path / "out"
    with FileLock(f"{folder}.lock"):
        assert command([*words, "--output_dir", str(folder)]) == 1
    assert f"expected no other command that writes to {folder}; found one." in capsys.readouterr().err
    assert not folder.exists()


def test_an_interrupted_or_failed_command_gives_its_folder_free(tmp_path):
    for error, status in ((KeyboardInterrupt(), 130), (ValueError(), 1), (OSError(), 1)):
        assert run_command(partial(fail, error), name="x", resumable=tmp_path / "out") == status
    assert run_command(lambda: 0, name="x", resumable=tmp_path / "out") == 0


def test_the_processes_of_a_launch_share_their_folder(tmp_path, monkeypatch):
    def first():
        monkeypatch.setenv("RANK", "1")
        return run_command(lambda: 0, name="x", resumable=tmp_path / "out")

    assert run_command(first, name="x", resumable=tmp_path / "out") == 0


def test_the_value_of_an_unknown_setting_is_not_repeated(capsys):
    assert "secret" not in refusal(capsys, "--passwrd", "secret", "--passwd=secret", "--zzz")
    assert run_command(partial(fail, OSError(f"header Bearer {TOKEN}")), name="x") == 1
    assert "Secret1" not in capsys.readouterr().err


def test_the_complete_help_of_training_names_settings_of_transformers_once(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    short = capsys.readouterr().out
    assert "--adam_beta1" not in short
    assert "--help-all" in short
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as stop:
        train.main(["--help-all"])
    assert stop.value.code == 0
    long = capsys.readouterr().out
    assert "--adam_beta1" in long
    assert "(default: None)" not in long
    assert max(map(len, long.splitlines())) <= 100
    flags = [flag.replace("-", "_") for flag in re.findall(r"^  (--[\w-]+)", long, re.MULTILINE)]
    assert len(flags) == len(set(flags)) > 150


def test_the_names_read_from_the_source_are_the_settings_that_the_trainer_takes():
    assert names_of_training_arguments() == {entry.name for entry in fields(TrainingArguments) if entry.init}


def test_the_paper_search_fills_its_arguments():
    [asked] = parse(SearchArguments, argv=["--config", str(ROOT / "recipes/paper_search.yaml")])
    assert len(extractors(asked)) + len(heads(asked, extractors(asked)[0].topology)) == 36
    assert (ROOT / asked.base).is_file()


@pytest.mark.parametrize("file", TRAININGS, ids=lambda file: file.stem)
def test_every_recipe_fills_the_arguments_of_training_and_makes_no_folder(file, tmp_path):
    folder = tmp_path / "run"
    words = ["--config", str(file), "--output_dir", str(folder)]
    data, model, run = parse(DataArguments, ModelArguments, RunArguments, argv=words)
    kind = next(kind for kind in ("deit", "vit", "cifake-cnn", "multiview") if kind in model.model)
    assert file.stem.startswith({"cifake-cnn": ("cifake_cnn", "demo"), "multiview": "wild"}.get(kind, kind))
    assert run.output_dir == str(folder)
    sources = {"demo": ["demo"], "wild_large": [OPENFAKE, FORENSICS, COCO]}
    expected = sources.get(file.stem, ["data/wild" if kind == "multiview" else "cifake"])
    assert [part.partition("[")[0] for part in data.data.split(",")] == expected
    assert run.learning_rate in (0.004, 0.003, 0.0003, 0.0001, 0.000001)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_the_published_models_are_hardened_for_one_epoch_as_they_were_trained_but_for_hidden_cells(name):
    base = {"cnn": "cifake_cnn", "vit": "vit_tiny_cifake_32"}[name]
    files = [ROOT / f"recipes/studies/hardened_{name}.yaml", ROOT / f"recipes/{base}.yaml"]
    (model, run), (_, trained) = (
        parse(DataArguments, ModelArguments, RunArguments, argv=["--config", str(file)])[1:] for file in files
    )
    assert (ROOT / model.model / "model.safetensors").is_file()
    assert (run.hidden_share, run.num_train_epochs) == (0.5, 1)
    assert run.learning_rate == pytest.approx(trained.learning_rate / 10)
    for same in ("flip", "crop_padding", "bf16", "weight_decay", "per_device_train_batch_size"):
        assert getattr(run, same) == getattr(trained, same)


def test_training_takes_nested_settings_and_null_from_a_recipe(recipe, tmp_path):
    text = "lr_scheduler_kwargs: {num_cycles: 2, least: 1e-5}\nsave_total_limit: null\nearly_stopping_patience: 3\n"
    [run] = parse(RunArguments, argv=[*recipe(text), "--output_dir", str(tmp_path / "run")])
    assert run.lr_scheduler_kwargs == {"num_cycles": 2, "least": 1e-5}
    assert (run.save_total_limit, run.early_stopping_patience) == (None, 3)
