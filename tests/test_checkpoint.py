import ast
import io
import json
import pickle
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from damaged_models import FAMILIARITY, HARMLESS, OPTIONAL, POINT, POINTER, WEIGHTS, damages
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.crosseval.models import check_models
from realfake_hf.detector import Detector
from realfake_hf.labels import NotFiniteError, Verdict
from realfake_hf.metrics.calibration import scale
from realfake_hf.metrics.out_of_distribution import fit_familiarity
from realfake_hf.models import deit
from realfake_hf.models.checkpoint import load_classifier, load_config, locate
from realfake_hf.models.pretrained import load_pretrained
from realfake_hf.run_folder import read_record, read_run
from realfake_hf.score import __main__ as score
from realfake_hf.score import run as scoring
from realfake_hf.score.arguments import ScoreArguments
from realfake_hf.store import read_json
from realfake_hf.training.distillation import Teacher

ROOT = Path(__file__).resolve().parents[1]
REAL_FAKE = {"id2label": {0: "REAL", 1: "FAKE"}, "label2id": {"REAL": 0, "FAKE": 1}}
OPENS = {"from_pretrained", "from_config", "pipeline"}  # of transformers, each of which may run code
LOADERS = {  # everything that loads a classifier
    "detector": Detector.from_pretrained,
    "fine-tuning": lambda place: load_pretrained(str(place)),
    "teacher": lambda place: Teacher.from_pretrained(place, weight=0.5),
    "grid": lambda place: check_models({"one": str(place)}),
    "deit": lambda place: deit.main.__wrapped__(deit.DeitArguments(str(place), place.with_name("deit"))),
}


def save_vit(folder, **settings):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(image_size=32, patch_size=8, **shape, **{**REAL_FAKE, **settings})
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A small CNN with every file that a detector reads."""
    folder = tmp_path_factory.mktemp("models") / "intact"
    torch.manual_seed(0)
    CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=4, dense_units=6)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    band = {"low": 0.1, "high": 0.9, "promised": 0.05}
    point = {"threshold": 0.4, "chosen": "by hand", "n": 9, "sha256": "ab", "temperature": 1.5, "band": band}
    (folder / POINT).write_text(json.dumps(point))
    points, is_fake = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32), np.arange(60) % 2 == 1
    fit_familiarity(points, is_fake, points, sha256="ab").save(folder)
    return folder


@pytest.fixture
def vit(tmp_path):
    return save_vit(tmp_path / "megatron")


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that no code of a model may write, although the terminal answers yes to every question."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n" * 1000))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "marker"


def code_that_writes(marker):
    return f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Custom: pass\n"


def change(file, **settings):
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **settings}))


def use_auto_map(folder):
    names = ("AutoConfig", "AutoModelForImageClassification", "AutoImageProcessor")
    for file in ("config.json", "preprocessor_config.json"):
        change(folder / file, auto_map=dict.fromkeys(names, "custom.Custom"))


def use_unknown_type(folder):
    use_auto_map(folder)
    change(folder / "config.json", model_type="custom")


def use_processor_code(folder):
    change(
        folder / "preprocessor_config.json",
        auto_map={"AutoImageProcessor": "custom.Custom"},
        image_processor_type=None,
    )


def use_processor_of_any_class(folder):
    settings = {"image_processor_type": "AutoProcessor", "auto_map": {"AutoProcessor": "custom.Custom"}}
    change(folder / "preprocessor_config.json", **settings)


def use_nested_processor_of_any_class(folder):
    settings = {"image_processor_type": "AutoTokenizer", "auto_map": {"AutoTokenizer": "custom.Custom"}}
    change(folder / "processor_config.json", image_processor=settings)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["custom.Custom", None]})


def use_processor_of_any_class_in_the_config(folder):
    change(folder / "preprocessor_config.json", image_processor_type=None, auto_map={"AutoProcessor": "custom.Custom"})
    change(folder / "config.json", image_processor_type="AutoProcessor")


def use_adapter(folder):
    modules = {
        "megatron_config": {"tensor_model_parallel_size": 1},
        "megatron_core": "megatron.custom",
    }  # peft imports it
    change(folder / "adapter_config.json", peft_type="LORA", target_modules=["q_proj"], r=1, **modules)


def use_pickle(folder):
    class Payload:
        def __reduce__(self):
            return exec, ((folder / "custom.py").read_text(),)

    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"classifier.weight": Payload()}))


ATTACKS = [
    use_auto_map, use_unknown_type, use_processor_code, use_processor_of_any_class, use_nested_processor_of_any_class,
    use_processor_of_any_class_in_the_config, use_adapter, use_pickle,
]  # fmt: skip


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_code_of_a_model_never_runs_though_the_terminal_says_yes(attack, loader, vit, marker):
    for folder in (vit, vit.parent):  # also as a module of the working directory
        (folder / "custom.py").write_text(code_that_writes(marker))
    attack(vit)
    knows_classes = attack in (use_auto_map, use_processor_code)  # transformers has those of this type of model
    if knows_classes or (loader == "grid" and attack is use_pickle):  # which reads no weights
        LOADERS[loader](vit)
    else:
        with pytest.raises((OSError, ValueError)) as refused:
            LOADERS[loader](vit)
        assert "\n" not in str(refused.value)
    assert not marker.exists()
    assert not {"custom", "megatron.custom"} & set(sys.modules)


def test_code_of_a_model_runs_where_it_is_asked_for(vit, marker):
    code = code_that_writes(marker).replace(
        "class Custom:", "from transformers import ViTConfig\nclass Custom(ViTConfig):"
    )
    (vit / "custom.py").write_text(code)
    change(vit / "config.json", auto_map={"AutoConfig": "custom.Custom"})
    assert type(load_config(vit)).__name__ == "ViTConfig"
    assert not marker.exists()
    assert type(load_config(vit, trust_remote_code=True)).__name__ == "Custom"
    assert marker.exists()


def test_every_call_of_transformers_says_whether_code_may_run():
    files = [file for place in ("realfake_hf", "space", "benchmarks") for file in (ROOT / place).rglob("*.py")]
    calls = [
        (file, node, name)
        for file in [*files, *ROOT.glob("*.py")]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and (name := _opened(node))
    ]
    assert {file.name for file, *_ in calls} >= {"checkpoint.py", "vit_throughput.py"}
    silent = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file, node, name in calls
        if not any(keyword.arg in ("trust_remote_code", None) for keyword in node.keywords)
    ]
    assert not silent
    trusting = [node for _, node, _ in calls for keyword in node.keywords if ast.unparse(keyword.value) == "True"]
    assert not [node for node in trusting if any(keyword.arg == "trust_remote_code" for keyword in node.keywords)]
    assert {file.name for file, _, name in calls if name.startswith("AutoModel")} <= {
        "checkpoint.py", "vit_throughput.py", "scoring_throughput.py",  # benchmarks time transformers itself
    }  # fmt: skip


def _opened(node):
    """The name of a function of transformers that opens a model or a part of one."""
    match node.func:
        case ast.Name(id="pipeline"):
            return "pipeline"
        case ast.Attribute(value=ast.Name(id=owner), attr=method) if owner.startswith("Auto") and method in OPENS:
            return f"{owner}.{method}"
    return None


@pytest.mark.parametrize("kind", [{}, {"peft_type": "LORA"}])
def test_an_adapter_is_no_model(vit, kind):
    (vit / "adapter_config.json").write_text(json.dumps(kind))
    with pytest.raises(ValueError, match="adapter"):
        load_classifier(vit)


def test_weights_that_may_contain_code_are_refused_where_asked(vit):
    (vit / WEIGHTS).rename(vit / "adapter_model.bin")
    change(vit / "config.json", transformers_weights="adapter_model.bin")
    with pytest.raises(OSError, match=WEIGHTS):
        Detector.from_pretrained(vit, only_safetensors=True)


@pytest.mark.parametrize("lost", ["vit.layers.0.mlp.fc1.weight", "vit.embeddings.cls_token"])
def test_fine_tuning_draws_only_a_new_head(vit, lost):
    tensors = load_file(vit / WEIGHTS)
    named = {name.replace("vit.encoder.layer.", "vit.layers."): name for name in tensors}
    heads = [name for name in tensors if name.startswith("classifier")]
    assert heads
    save_file({name: value for name, value in tensors.items() if name not in heads}, vit / WEIGHTS)
    model, _ = load_pretrained(str(vit))
    assert model.classifier.weight.shape == (2, 16)
    with pytest.raises(ValueError, match=r"classifier\.bias, classifier\.weight"):
        load_classifier(vit)
    [stored] = [name for short, name in named.items() if short.endswith(lost.rpartition("vit.")[2])] or [None]
    stored = stored or next(name for name in tensors if "intermediate" in name and name.endswith("weight"))
    save_file({name: value for name, value in tensors.items() if name != stored}, vit / WEIGHTS)
    with pytest.raises(ValueError, match="found none, or another shape, for 1 of them: vit"):
        load_pretrained(str(vit))


def test_more_weights_than_the_model_has_are_harmless(vit):
    digest = Detector.from_pretrained(vit).digest()
    save_file({**load_file(vit / WEIGHTS), "pooler.weight": torch.ones(3)}, vit / WEIGHTS)
    assert Detector.from_pretrained(vit).digest() == digest


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_another_kind_of_problem_is_fine_tuned_and_not_judged(tmp_path, problem):
    folder = save_vit(tmp_path / "vit", problem_type=problem)
    for load in (LOADERS["detector"], LOADERS["teacher"], LOADERS["grid"]):
        with pytest.raises(ValueError, match=problem):
            load(folder)
    model, _ = load_pretrained(str(folder))
    assert model.config.problem_type == "single_label_classification"
    assert model(pixel_values=torch.zeros(2, 3, 32, 32), labels=torch.tensor([0, 1])).loss.isfinite()


def test_a_model_with_one_output_is_not_judged(tmp_path):
    folder = save_vit(tmp_path / "vit", id2label={0: "FAKE"}, label2id={"FAKE": 0})
    with pytest.raises(ValueError, match=r"one that means fake; found \{0: 'FAKE'\}"):
        Detector.from_pretrained(folder)


@pytest.mark.parametrize(
    "typed",
    ["{0}/space/models/cifake-cn", "space/models/cifakecnn", "./cifake-cnn", "cifake-cnn", "~/cifake-cnn", "a/b/c"],
)
def test_a_path_that_does_not_exist_is_named_at_once_with_a_similar_one(typed, tmp_path, monkeypatch):
    def no_requests(*_, **__):
        raise AssertionError("a request")

    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", no_requests)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_requests)
    save_vit(tmp_path / "space/models/cifake-cnn")
    monkeypatch.chdir(tmp_path)
    place = typed.format(tmp_path)
    began = time.monotonic()
    with pytest.raises(OSError, match=f"no such folder at '{place}'") as refused:
        Detector.from_pretrained(place)
    assert time.monotonic() - began < 1
    assert ("did you mean" in str(refused.value)) == ("cifake" in typed)
    assert str(refused.value).endswith("space/models/cifake-cnn?") == ("cifake" in typed)


def test_a_file_is_no_model_and_a_hub_id_stays_one(vit, monkeypatch):
    monkeypatch.chdir(vit.parent)
    assert locate("user/name") == "user/name"
    assert locate("megatron") == "megatron"
    with pytest.raises(OSError, match="no such folder at 'megatron/nothing'"):  # the user's own folder
        locate("megatron/nothing")
    with pytest.raises(OSError, match=r"a file at 'megatron/config\.json'"):
        locate("megatron/config.json")


def test_images_with_logits_that_are_not_finite_get_an_error_and_the_others_a_verdict(intact, tmp_path, monkeypatch):
    detector = Detector.from_pretrained(intact)
    forward = detector.inference_model.forward

    def fails_on_black(pixel_values, **settings):
        output = forward(pixel_values, **settings)
        output.logits[pixel_values.flatten(1).amax(1) < 0] = torch.tensor([-torch.inf, 0])
        return output

    images = [Image.new("RGB", (32, 32), colour) for colour in ("white", "black", "red")]
    for name, image in zip("abc", images, strict=True):
        image.save(tmp_path / f"{name}.png")
    expected = detector.predict(images)
    monkeypatch.setattr(detector.inference_model, "forward", fails_on_black)
    for function in (detector.predict, detector.probabilities):
        with pytest.raises(NotFiniteError, match="image 1; found NaN or infinity"):
            function(images)
    with pytest.raises(NotFiniteError, match=r"b\.png"):
        detector.predict([tmp_path / f"{name}.png" for name in "abc"])
    monkeypatch.setattr(scoring, "load_detector", lambda *_: detector)
    scoring.score(ScoreArguments(model="one", data=[str(tmp_path)], output=tmp_path / "scores"))
    rows = pq.read_table(tmp_path / "scores/part-000000.parquet").to_pylist()
    assert [row["label"] for row in rows] == [expected[0].label, None, expected[2].label]
    assert [row["p_fake"] for row in rows][::2] == pytest.approx([expected[0].p_fake, expected[2].p_fake], abs=1e-6)
    assert "NaN" in rows[1]["error"]
    assert rows[1]["p_fake"] is rows[0]["error"] is None


@pytest.mark.parametrize("p_fake", [float("nan"), float("inf"), -0.1, 1.1])
def test_what_is_no_probability_is_no_verdict(p_fake):
    with pytest.raises(ValueError, match=r"probability in \[0, 1\]"):
        Verdict.of(p_fake)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"arguments": []}', "", POINTER.decode()])
def test_a_damaged_record_of_a_run_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    for read in (read_record, read_run):
        with pytest.raises((OSError, ValueError), match=r"run\.json"):
            read(tmp_path)


@pytest.mark.slow
def test_damaged_models_get_one_sentence_or_the_verdict_of_the_intact_model(intact, tmp_path, capsys):
    Image.fromarray(np.random.default_rng(1).integers(256, size=(40, 50, 3), dtype=np.uint8)).save(tmp_path / "a.png")

    def answer(folder):
        """The row of scores, or the message of the command."""
        shutil.rmtree(tmp_path / "scores", ignore_errors=True)
        words = ["--model", str(folder), "--data", str(tmp_path / "a.png"), "--output", str(tmp_path / "scores")]
        status, said = score.main(words), capsys.readouterr().err.strip()
        return said if status else pq.read_table(tmp_path / "scores/part-000000.parquet").to_pylist()[0]

    expected, answers = answer(intact), {}
    for name, damage in damages():
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(intact, folder)
        damage(folder)
        began = time.monotonic()
        answers[name] = answer(folder)
        assert time.monotonic() - began < 30, name
    assert len(answers) >= 159
    judged = {name: row for name, row in answers.items() if isinstance(row, dict)}
    assert set(judged) == HARMLESS | OPTIONAL
    assert all(judged[name] == expected for name in HARMLESS)
    assert judged[f"{FAMILIARITY}: missing"] == {**expected, "is_far": None}
    by_default = {"label": "REAL", "is_sure": None, "reason": None}  # threshold one half, no temperature, no band
    assert all(expected[name] != value for name, value in {**by_default, "is_far": None}.items())
    unscaled = float(scale(expected["p_fake"], 1 / read_json(intact / POINT)["temperature"]))
    assert judged[f"{POINT}: missing"] == {**expected, **by_default, "p_fake": pytest.approx(unscaled, abs=1e-6)}
    for name, said in answers.items():
        assert name in judged or (said.startswith("score: --model: ") and "\n" not in said), (name, said)
