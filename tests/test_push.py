"""Models, Spaces and data sets are published to a local Hub over HTTP, and loaded from there by name."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
from gradio_client import Client, handle_file
from test_multiview import build
from test_multiview import save as save_model
from writable_hub import CLIENT, TOKEN, serve

import train
from benchmarks.space_server import Server
from realfake_hf.data.loading import load_images
from realfake_hf.detector import Detector
from realfake_hf.hub.__main__ import main
from realfake_hf.hub.push import publish_model
from realfake_hf.metrics.calibration import scale
from realfake_hf.training.callbacks import EpochLines

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "space/models"
EXAMPLE = ROOT / "space/examples/rocket.jpg"


@pytest.fixture(scope="module")
def served():
    with serve() as (hub, address):
        yield hub, address


@pytest.fixture
def hub(served, monkeypatch):
    """An empty Hub at the endpoint of huggingface_hub, and a token."""
    running, address = served
    running.reset()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", address, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    running.address = address
    return running


def environment(hub, tmp_path, **more):
    """Environment of a process with an empty cache and the local Hub as endpoint."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**kept, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", **more}


def words(name, *more):
    return ["--model_dir", str(MODELS / name), "--hub_model_id", f"user/{name}", *more]


def test_the_local_hub_follows_the_installed_client():
    assert huggingface_hub.__version__.startswith(CLIENT)


@pytest.mark.parametrize(
    ("name", "code"),
    [("cifake-vit", ""), ("cifake-cnn", ", trust_remote_code=True"), ("wild", ", trust_remote_code=True")],
)
@pytest.mark.slow
def test_a_published_model_gives_the_scores_before_temperature_scaling_in_a_pipeline(hub, tmp_path, name, code):
    publish_model(MODELS / name, f"user/{name}")
    script = (
        "import json\nfrom transformers import pipeline\n"
        f"rows = pipeline('image-classification', model='user/{name}'{code})({str(EXAMPLE)!r})\n"
        "print(json.dumps({row['label']: row['score'] for row in rows}))\n"
    )
    if code:  # without this package: it would know the CNN
        script = f"import sys\nsys.modules['realfake_hf'] = None\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(hub, tmp_path), capture_output=True, text=True, check=False,
        timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.splitlines()[-1])
    detector = Detector.from_pretrained(MODELS / name)
    [verdict] = detector.predict(str(EXAMPLE))
    assert scale(scores["FAKE"], detector.point.temperature) == pytest.approx(verdict.p_fake, abs=1e-5)


@pytest.mark.slow
def test_the_detector_loads_threshold_band_and_familiarity_from_the_hub(hub, tmp_path):
    commit = publish_model(MODELS / "cifake-cnn", "user/cifake-cnn", tag="v1").commit
    script = (
        "from realfake_hf import Detector\n"
        "detector = Detector.from_pretrained('user/cifake-cnn', revision='v1')\n"
        f"[verdict] = detector.predict({str(EXAMPLE)!r})\n"
        "print(detector.point.band.high, verdict.p_fake, verdict.is_sure, verdict.is_far)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(hub, tmp_path), capture_output=True, text=True, check=True
    )
    local = Detector.from_pretrained(MODELS / "cifake-cnn")
    [verdict] = local.predict(str(EXAMPLE))
    high, p_fake, sure, far = done.stdout.split()
    assert (float(high), sure, far) == (local.point.band.high, str(verdict.is_sure), str(verdict.is_far))
    assert float(p_fake) == pytest.approx(verdict.p_fake, abs=1e-5)
    assert hub.repositories["model", "user/cifake-cnn"].names["v1"] == commit


def test_one_commit_holds_weights_card_figures_and_record_and_nothing_else(hub):
    published = publish_model(MODELS / "cifake-cnn", "user/cnn")
    repository = hub.repositories["model", "user/cnn"]
    assert len(repository.commits) == 2  # the empty one that every repository begins with
    files = repository.files("main")
    assert set(files) == set(published.files)
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "cifake_cnn.py", "run.json",
            "operating_point.json", "familiarity.safetensors", "metrics.json"} <= set(files)  # fmt: skip
    assert not [path for path in files if path.endswith((".bin", ".pt", ".pkl", ".npz"))]
    text = "\n".join(data.decode() for path, data in files.items() if path.endswith((".json", ".md", ".py")))
    assert str(Path.home()) not in text
    assert "[More Information Needed]" not in text
    assert "optimizer" not in " ".join(files)


def test_local_paths_are_removed_or_rejected(hub, tmp_path):
    folder = shutil.copytree(MODELS / "cifake-cnn", tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record["arguments"]["data"] = "/home/someone/data/cats"
    (folder / "run.json").write_text(json.dumps(record))
    publish_model(folder, "user/cats")
    files = hub.repositories["model", "user/cats"].files("main")
    assert json.loads(files["run.json"])["arguments"]["data"] == "cats"
    assert b"someone" not in files["README.md"]
    (folder / "history.json").write_text('{"note": "/home/someone/secret.txt"}')
    with pytest.raises(ValueError, match=r"found /home/someone/secret\.txt in history\.json"):
        publish_model(folder, "user/cats")


@pytest.fixture
def kept(tmp_path):
    """A small model that train.py did not write, with a card of its own."""
    folder = save_model(build(), tmp_path / "kept")
    shutil.copy(MODELS / "wild/operating_point.json", folder)
    (folder / "README.md").write_text('---\nlicense: mit\n---\n\nLoad it as "user/name".\n')
    (folder / "optimizer.pt").write_bytes(b"no part of a model")
    return folder


def test_a_model_without_a_run_is_published_with_its_own_card(hub, kept, tmp_path):
    publish_model(kept, "user/kept")
    files = hub.repositories["model", "user/kept"].files("main")
    copied = {"config.json", "model.safetensors", "multiview.py", "views.py", "preprocessor_config.json"}
    assert set(files) == {"README.md", "operating_point.json", *copied}
    assert all(files[name] == (kept / name).read_bytes() for name in files if name != "README.md")
    assert files["README.md"].decode().endswith('Load it as "user/kept".\n')
    for name, digest in (("same", Detector.from_pretrained(kept).digest()), ("other", "0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wild.json").write_text(json.dumps({"kept": {"weights": digest}}))
        (tmp_path / name / "wild.md").write_text("| fold | AUC |")
        publish_model(kept, f"user/{name}", results=tmp_path / name)
        card = hub.repositories["model", f"user/{name}"].files("main")["README.md"].decode()
        assert ("## Evaluation\n\n| fold | AUC |" in card) is (name == "same")


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("README.md", "hf_" + "a" * 30, "token or key .* in README.md"),
        ("views.py", "-----BEGIN RSA PRIVATE KEY-----", "token or key .* in views.py"),
        ("README.md", "/home/someone/model", "local path .* /home/someone/model in README.md"),
        ("operating_point.json", None, "operating_point.json"),
    ],
)
def test_a_model_with_a_secret_or_a_path_or_without_operating_point_is_refused(hub, kept, file, text, named):
    (kept / file).unlink() if text is None else (kept / file).write_text(text)
    with pytest.raises(ValueError, match=named):
        publish_model(kept, "user/kept")
    assert hub.requests == []


def test_a_dry_run_lists_the_files_and_sends_no_request(hub, capsys):
    assert main(words("cifake-cnn", "--dry_run", "--space", "user/space")) == 0
    output = capsys.readouterr().out
    assert "| model.safetensors | " in output
    assert "| app.py | " in output
    assert "| pinned.json | " in output
    assert output.count("dry run: nothing was uploaded") == 2
    assert hub.requests == []


def test_requests_are_repeated_while_the_hub_is_busy(hub):
    hub.troubles = {"/preupload/": [429, 503], "/commit/": [500], "/objects/": [502]}
    published = publish_model(MODELS / "cifake-cnn", "user/cnn")
    assert not any(hub.troubles.values())
    assert hub.repositories["model", "user/cnn"].names["main"] == published.commit


def test_a_repeated_upload_does_not_send_large_files_again(hub):
    hub.troubles = {"/commit/": [500] * 20}
    with pytest.raises(OSError, match=r"status 500: it failed\. Repeat the command"):
        publish_model(MODELS / "cifake-cnn", "user/cnn")
    before = dict(hub.sent)
    assert before
    hub.troubles = {}
    publish_model(MODELS / "cifake-cnn", "user/cnn")
    assert hub.sent == before  # no large file went twice


ASK = f"from realfake_hf import Detector; print(Detector.from_pretrained('user/cnn').predict({str(EXAMPLE)!r}))"


def ask(hub, tmp_path, **settings):
    """Load the model in a new process, and predict the example."""
    return subprocess.run(
        [sys.executable, "-c", ASK], env=environment(hub, tmp_path), capture_output=True, text=True, check=False,
        timeout=120, **settings,
    )  # fmt: skip


@pytest.mark.slow
def test_an_interrupted_download_resumes(hub, tmp_path):
    publish_model(MODELS / "cifake-vit", "user/cnn")  # large enough to arrive in parts
    hub.cuts = {"model.safetensors": 1}
    done = ask(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[Verdict(label='FAKE'")
    [(path, start)] = hub.resumed
    assert path == "model.safetensors"
    assert start > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes there")
def test_a_full_disk_during_a_download_leaves_no_damage(hub, tmp_path):
    import resource

    publish_model(MODELS / "cifake-cnn", "user/cnn")
    limit = 300_000  # bytes of a file, of which the weights have more
    done = ask(hub, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode != 0
    assert "File too large" in done.stderr
    done = ask(hub, tmp_path)
    assert done.stdout.startswith("[Verdict(label='REAL'"), done.stderr


def test_a_full_disk_during_publishing_is_reported(hub, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("realfake_hf.hub.push.shutil.copy", full)
    assert main(words("cifake-cnn")) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("publish: cannot write a file: [Errno 28] No space left on device. Free some disk space")
    assert hub.requests == []


@pytest.mark.slow
def test_the_published_space_serves_the_published_model(hub, tmp_path):
    assert main(words("cifake-cnn", "--space", "user/demo")) == 0
    for path, data in hub.repositories["space", "user/demo"].files("main").items():
        file = tmp_path / "demo" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    more = {**environment(hub, tmp_path), "HF_HUB_OFFLINE": "0"}
    server = Server(tmp_path / "server", script=tmp_path / "demo/app.py", environment=more)
    try:
        client = Client(server.url, verbose=False)
        answer = client.predict(handle_file(str(EXAMPLE)), "user/cifake-cnn", api_name="/predict")
    finally:
        server.stop()
    [verdict] = Detector.from_pretrained(MODELS / "cifake-cnn").predict(str(EXAMPLE))
    assert answer["p_fake"] == pytest.approx(verdict.p_fake, abs=1e-5)
    assert "240 test images of CIFAKE" in answer["meaning"]
    commit = hub.repositories["model", "user/cifake-cnn"].names["main"]
    assert any(f"/{commit}/" in path for _, path in hub.requests)


def test_unchanged_files_are_not_sent_again(hub):
    first = publish_model(MODELS / "cifake-cnn", "user/cnn")
    before = dict(hub.sent)
    assert publish_model(MODELS / "cifake-cnn", "user/cnn").commit == first.commit
    assert hub.sent == before


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "the token is missing or invalid"), (403, "the token has no write access"), (507, "it failed")],
)  # fmt: skip
def test_refusals_of_the_hub_are_explained(hub, status, reason):
    hub.troubles = {"/commit/": [status] * 20}
    with pytest.raises(OSError, match=f"cannot publish user/cnn: the Hub answered with status {status}: {reason}"):
        publish_model(MODELS / "cifake-cnn", "user/cnn")


@pytest.mark.usefixtures("hub")
def test_an_unreachable_hub_is_reported(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", "http://127.0.0.1:9", raising=False)
    with pytest.raises(OSError, match="cannot publish user/cnn: the connection broke"):
        publish_model(MODELS / "cifake-cnn", "user/cnn")


def test_the_token_is_in_no_log(hub, caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        assert main(words("cifake-cnn")) == 0
    output = capsys.readouterr()
    assert TOKEN not in caplog.text + output.out + output.err
    assert f"Bearer {TOKEN}" in hub.tokens


def test_visibility_branch_and_tag_are_applied(hub):
    assert main(words("cifake-cnn", "--private", "--revision", "next", "--tag", "v2")) == 0
    repository = hub.repositories["model", "user/cifake-cnn"]
    assert repository.private
    assert repository.names["next"] == repository.names["v2"] != repository.names["main"]


def test_the_space_is_published_with_its_model_pinned_by_revision(hub):
    assert main(words("cifake-cnn", "--space", "user/demo")) == 0
    files = hub.repositories["space", "user/demo"].files("main")
    commit = hub.repositories["model", "user/cifake-cnn"].names["main"]
    assert json.loads(files["pinned.json"]) == {"user/cifake-cnn": commit}
    assert {"app.py", "requirements.txt", "realfake_hf.zip", "README.md", "realfake_space/page.py"} <= set(files)
    assert not [path for path in files if path.startswith("models/")]


@pytest.mark.slow
def test_a_data_set_is_published_with_its_card_and_loads_in_the_schema(hub, tmp_path):
    flags = ["--dataset", "user/set", "--data", "demo", "--license", "cc-by-4.0", "--with_pictures"]
    assert main(flags) == 0
    files = hub.repositories["dataset", "user/set"].files("main")
    assert set(files) == {
        "README.md",
        *(f"data/{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")),
        "shards.json",
    }
    card = files["README.md"].decode()
    assert "| train | 721 | 721 | astronaut 328, " in card
    assert "demo-autoencoder" in card
    script = (
        "from datasets import load_dataset\nfrom realfake_hf import load_images\n"
        "rows, images = load_dataset('user/set', split='test'), load_images('user/set')\n"
        "print(len(rows), rows.features['label'].names, len(images['test']), images['train']['sha256'][0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(hub, tmp_path), capture_output=True, text=True, check=False,
        cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("390 ['REAL', 'FAKE'] 390 ")
    assert done.stdout.split()[-1] in load_images("demo")["train"]["sha256"][:]


def test_a_data_card_alone_says_that_the_images_are_missing(hub):
    assert main(["--dataset", "user/set", "--data", "demo", "--license", "other"]) == 0
    [card] = hub.repositories["dataset", "user/set"].files("main").values()
    assert b"does not contain the images" in card


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "expected --model_dir, --space or --dataset; found none of them."),
        (["--model_dir", "x"], "expected --model_dir and --hub_model_id together; found one of them."),
        (["--dataset", "user/x", "--data", "demo"], "expected --dataset, --data and --license together; found some"),
    ],
)
def test_incomplete_options_are_rejected(given, sentence, capsys):
    with pytest.raises(SystemExit):
        main(given)
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nobody", "a b/c", "user/name/more"])
def test_an_invalid_name_is_rejected_before_any_request(hub, name):
    with pytest.raises(ValueError, match="expected a name on the Hub, such as user/name"):
        publish_model(MODELS / "cifake-cnn", name)
    assert hub.requests == []


def test_an_unfinished_run_is_rejected(hub, tmp_path, capsys):
    assert main(["--model_dir", str(tmp_path), "--hub_model_id", "user/none"]) == 1
    assert "expected a finished run of train.py" in capsys.readouterr().err
    assert hub.requests == []


@pytest.mark.slow
def test_the_documented_lines_use_a_published_model(hub, tmp_path):
    page = (ROOT / "docs/publishing.md").read_text()
    [block] = re.findall(r"## Using a published model\n\n```python\n(.*?)```", page, re.DOTALL)
    publish_model(MODELS / "cifake-vit", "user/name")
    shutil.copy(EXAMPLE, tmp_path / "photo.jpg")
    lines = block.replace('pipeline("', 'rows = pipeline("') + "\nprint(rows)\n"
    done = subprocess.run(
        [sys.executable, "-c", lines], env=environment(hub, tmp_path), capture_output=True, text=True, check=True,
        cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert "'label': 'FAKE'" in done.stdout


def train_words(folder, *more):
    small = ["--num_train_epochs", "1", "--num_filters", "4", "--dense_units", "4", "--bootstrap_samples", "20"]
    return ["--config", str(ROOT / "recipes/demo.yaml"), *small, "--output_dir", str(folder), *more]


@pytest.mark.slow
def test_a_training_is_published_at_its_end(hub, tmp_path, capsys):
    flags = train_words(tmp_path / "run", "--push_to_hub", "--hub_model_id", "user/mine")
    assert train.main(flags) == 0
    assert "published: " in capsys.readouterr().out
    files = hub.repositories["model", "user/mine"].files("main")
    assert files["model.safetensors"] == (tmp_path / "run/model.safetensors").read_bytes()
    assert b"Not evaluated. Expect accuracy near chance" in files["README.md"]
    assert "hub_model_id" not in json.loads(files["run.json"])["arguments"]
    assert not [path for path in files if "checkpoint" in path or "optimizer" in path]


def bytes_below(folder):
    """The content of all files below a folder, and of the members of those that are zip archives."""
    for file in filter(Path.is_file, folder.rglob("*")):
        yield file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                yield from map(archive.read, archive.namelist())


@pytest.mark.slow
def test_a_token_given_to_a_training_is_used_and_not_stored(hub, tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    folder, publication = tmp_path / "run", ["--push_to_hub", "--hub_model_id", "user/mine", "--hub_token", TOKEN]
    words = train_words(folder, "--num_train_epochs", "2", *publication)

    def interrupt(*given, **_):
        if given[2].epoch >= 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_epoch_begin", interrupt)
        assert train.main(words) == 130
    assert list(folder.glob("checkpoint-*/training_args.bin"))
    assert train.main(words) == 0
    assert len(list(folder.rglob("training_args.bin"))) == 3
    stored = [*bytes_below(folder), *hub.repositories["model", "user/mine"].files("main").values()]
    assert not [data for data in stored if TOKEN.encode() in data]
    assert TOKEN not in "".join(capfd.readouterr())
    assert set(hub.tokens) >= {f"Bearer {TOKEN}"}


def test_a_training_without_a_name_or_token_is_rejected_before_it_starts(hub, tmp_path, capsys, monkeypatch):
    assert train.main(train_words(tmp_path / "run", "--push_to_hub")) == 1
    assert "expected --hub_model_id user/name with --push_to_hub; found none." in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    assert train.main(train_words(tmp_path / "run", "--push_to_hub", "--hub_model_id", "user/mine")) == 1
    assert "expected a token for user/mine; found none." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert hub.requests == []


@pytest.mark.slow
def test_a_training_that_cannot_be_published_is_complete_and_names_the_command(hub, tmp_path, capsys):
    hub.troubles = {"/commit/": [403] * 9}
    assert train.main(train_words(tmp_path / "run", "--push_to_hub", "--hub_model_id", "user/mine")) == 1
    output = capsys.readouterr().err
    assert "status 403" in output
    assert f"python -m realfake_hf.hub --model_dir {tmp_path / 'run'} --hub_model_id user/mine" in output
    hub.troubles = {}
    assert main(["--model_dir", str(tmp_path / "run"), "--hub_model_id", "user/mine"]) == 0
