"""The command `realfake`: verdicts of files in words, as tables and as a page."""

import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from writable_hub import Repository, serve

from realfake_hf.__main__ import COMMANDS, main
from realfake_hf.check import models
from realfake_hf.check.models import LoadedModel
from realfake_hf.check.report import KINDS, Entry, write_report
from realfake_hf.check.run import COLUMNS, CheckedImage, csv_line
from realfake_hf.data.provenance import Evidence
from realfake_hf.labels import NotFiniteError, Verdict
from realfake_hf.metrics.operating_point import Band, OperatingPoint

ROOT = Path(__file__).parents[1]
WILD = ROOT / "space/models/wild"
ROCKET = ROOT / "space/examples/rocket.jpg"
POINT = OperatingPoint(0.5, "by hand", n=9, band=Band(0.2, 0.8, promised=0.05))


class Brightness:
    """A judge that calls an image FAKE by the brightness of its first pixel."""

    point = POINT

    def predict(self, images):
        verdicts = []
        for image in images:
            level = np.asarray(image)[0, 0, 0] / 255
            if level == 1:
                raise NotFiniteError("an image", 0)
            verdicts.append(POINT.judge(float(level)))
        return verdicts


@pytest.fixture
def judged(monkeypatch):
    monkeypatch.setattr(models, "load_model", lambda *_, **__: LoadedModel("bright", Brightness()))


def save(file, level, **settings):
    Image.new("RGB", (40, 30), (level, level, level)).save(file, **settings)
    return str(file)


def run_elsewhere(words, folder, **environment):
    """Run `realfake` as a process in another folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "REALFAKE_"))}
    settings = {**kept, "PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "home"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "realfake_hf", *words], cwd=folder, env=settings, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


class TestWords:
    @pytest.mark.usefixtures("judged")
    def test_an_image_has_one_line_with_verdict_probability_and_band(self, tmp_path, capsys):
        files = [save(tmp_path / f"{level}.png", level) for level in (10, 130, 240)]
        assert main(files) == 0
        real, unsure, fake = capsys.readouterr().out.splitlines()
        assert real == f"{files[0]}: Likely real. Probability of AI-generated 0.039 (unsure between 0.2 and 0.8)."
        assert unsure.startswith(f"{files[1]}: Unsure, possibly AI-generated: its score is between")
        assert fake.startswith(f"{files[2]}: Likely AI-generated. Probability of AI-generated 0.941")

    @pytest.mark.usefixtures("judged")
    def test_what_a_file_says_has_a_line_below_its_image(self, tmp_path, capsys):
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = "Canon", "EOS R5"
        assert main([save(tmp_path / "photo.jpg", 10, exif=exif)]) == 0
        line, said = capsys.readouterr().out.splitlines()
        assert line.endswith("(unsure between 0.2 and 0.8).")
        assert said.startswith("  camera EXIF: Canon EOS R5")

    @pytest.mark.usefixtures("judged")
    def test_a_file_that_cannot_be_read_is_named_and_the_status_is_1(self, tmp_path, capsys):
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"not an image")
        assert main([str(broken), save(tmp_path / "good.png", 10), save(tmp_path / "nan.png", 255)]) == 1
        first, second, third = capsys.readouterr().out.splitlines()
        assert first.startswith(f"{broken}: No verdict: ")
        assert "Likely real" in second
        assert "NaN or infinity" in third

    @pytest.mark.usefixtures("judged")
    def test_a_folder_is_searched_and_escapes_of_a_terminal_are_not_printed(self, tmp_path, capsys):
        save(tmp_path / "a\x1b[31m.png", 10)
        assert main(["check", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert out.count("\n") == 1

    @pytest.mark.usefixtures("judged")
    def test_a_word_that_names_nothing_is_an_error_in_one_line(self, tmp_path, capsys):
        assert main([str(tmp_path / "missing.jpg")]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("realfake: expected images at")


class TestTables:
    @pytest.mark.usefixtures("judged")
    def test_json_has_an_object_for_each_image(self, tmp_path, capsys):
        (tmp_path / "broken.png").write_bytes(b"-")
        save(tmp_path / "good.png", 240)
        assert main(["check", str(tmp_path), "--json"]) == 1
        broken, good = map(json.loads, capsys.readouterr().out.splitlines())
        assert tuple(good) == tuple(broken) == COLUMNS
        assert (good["label"], good["is_sure"], good["error"]) == ("FAKE", True, None)
        assert good["p_fake"] == pytest.approx(240 / 255)
        assert (broken["label"], broken["p_fake"], broken["is_sure"]) == (None, None, None)
        assert broken["error"]

    @pytest.mark.usefixtures("judged")
    def test_csv_has_a_header_and_no_cell_that_a_spreadsheet_computes(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        save(tmp_path / "=1+1.png", 10)
        assert main(["check", "=1+1.png", "--csv"]) == 0
        header, row = csv.reader(io.StringIO(capsys.readouterr().out))
        assert tuple(header) == COLUMNS
        assert row[:3] == ["'=1+1.png", "Likely real.", "REAL"]

    def test_a_number_stays_a_number(self):
        assert csv_line([-0.5, True, None, ["a", "b"]]) == "-0.5,true,,a; b\r\n"

    def test_both_forms_at_once_are_refused(self, tmp_path, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(["check", str(tmp_path), "--json", "--csv"])
        assert "not allowed with" in capsys.readouterr().err


class TestCommands:
    def test_help_lists_every_command_and_nothing_is_a_wrong_command(self, capsys):
        assert main(["--help"]) == 0
        text = capsys.readouterr().out
        assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in COMMANDS)
        assert main([]) == 2

    def test_every_command_exists(self):
        assert all(callable(command.load()) for command in COMMANDS.values())

    def test_a_command_names_the_extra_that_it_lacks(self, monkeypatch, capsys):
        monkeypatch.setattr("realfake_hf.__main__.find_spec", lambda _: None)
        assert main(["train"]) == 1
        assert "pip install 'realfake-hf[train]'" in capsys.readouterr().err

    def test_judging_needs_no_pytorch_and_prints_nothing_but_the_verdict(self, tmp_path):
        blocked = tmp_path / "blocked"
        for package in ("torch", "transformers", "datasets", "matplotlib", "sklearn", "pandas", "yaml"):
            (blocked / package).mkdir(parents=True)
            (blocked / package / "__init__.py").write_text("raise AssertionError('imported')")
        done = run_elsewhere([str(ROCKET)], tmp_path, PYTHONPATH=f"{blocked}{os.pathsep}{ROOT}")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{ROCKET}: Likely real. Probability of AI-generated ")


def test_the_readme_shows_what_the_command_prints(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command, output = re.search(r"^\$ realfake (.+)\n(.+)$", (ROOT / "README.md").read_text(), re.MULTILINE).groups()
    assert main(command.split()) == 0
    assert capsys.readouterr().out == f"{output}\n"


class TestModels:
    def test_without_the_default_model_the_error_says_what_to_do(self, monkeypatch, tmp_path):
        monkeypatch.setattr("realfake_hf.places.MODELS", (tmp_path / "wild",))
        with pytest.raises(OSError, match="Install the wheel"):
            models.load_model()

    def test_a_model_without_a_graph_needs_pytorch(self, monkeypatch):
        monkeypatch.setattr(models, "find_spec", lambda _: None)
        with pytest.raises(ValueError, match=r"realfake-hf\[train\]"):
            models.load_model(str(ROOT / "space/models/cifake-cnn"))

    @pytest.mark.slow
    def test_any_model_of_transformers_judges(self, capsys):
        assert main([str(ROCKET), "--model", str(ROOT / "space/models/cifake-cnn")]) == 0
        assert "was downscaled from 640 x 427 to the model's 32 x 32 pixels" in capsys.readouterr().out

    @pytest.mark.slow
    def test_a_model_of_the_hub_is_downloaded_once_and_its_commit_named(self, tmp_path):
        with serve() as (hub, address):
            repository = Repository("model", private=False)
            commit = repository.commit("main", {file.name: file.read_bytes() for file in WILD.iterdir()})
            hub.repositories["model", "user/wild"] = repository
            settings = {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
            words = [str(ROCKET), "--model", "user/wild"]
            first = run_elsewhere(words, tmp_path, **settings)
            downloads = [path for _, path in hub.requests if path.endswith(".safetensors")]
            second = run_elsewhere([*words, "--revision", commit], tmp_path, **settings)
            again = [path for _, path in hub.requests if path.endswith(".safetensors")]
        assert first.returncode == second.returncode == 0, first.stderr
        assert first.stdout == second.stdout
        assert f"--revision {commit}" in first.stderr
        assert downloads == again
        assert not list((tmp_path / "home").rglob("*.py"))

    def test_a_hub_that_cannot_be_reached_is_noticed_at_once(self, tmp_path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        done = run_elsewhere([str(ROCKET), "--model", "user/wild"], tmp_path, HF_ENDPOINT=address)
        assert time.monotonic() - began < 20  # two processes start meanwhile; a retry takes half a minute
        assert (done.returncode, done.stdout) == (1, "")
        notice, error = done.stderr.splitlines()
        assert "cannot be reached" in notice
        assert error.startswith("realfake: expected a model 'user/wild'")


class TestReport:
    def entry(self, name, p_fake, *, evidence=()):
        verdict = POINT.judge(p_fake)
        checked = CheckedImage(file=name, verdict=verdict, band=POINT.band, evidence=evidence)
        return Entry.of(checked, Image.new("RGB", (1000, 500)), None)

    def test_images_that_need_a_look_come_first_and_all_is_in_the_page(self, tmp_path):
        prompt = Evidence("generator text", 'text chunk "parameters"')
        entries = [
            self.entry("real.png", 0.1),
            Entry(CheckedImage(file="broken.png", error="damaged")),
            self.entry("unsure.png", 0.5),
            self.entry("fake.png", 0.9),
            self.entry("faker.png", 0.95),
            self.entry("<script>alert(1)</script>.png", 0.1, evidence=(prompt,)),
        ]
        assert [entry.kind for entry in entries] == ["real", "unreadable", "unsure", "fake", "fake", "contradiction"]
        file = tmp_path / "new/report.html"
        write_report(entries, file, model="models/wild", has_maps=False)
        page = file.read_text()
        names = re.findall(r"<h2>(.*?)</h2>", page)
        assert names[1:] == ["faker.png", "fake.png", "unsure.png", "broken.png", "real.png"]
        assert "<script" not in page
        assert page.count("data:image/jpeg;base64,") == 5
        assert not re.search(r'(src|href)="(?!data:)', page)
        assert [words in page for _, words in KINDS.items()] == [True] * 5

    def test_a_sure_fake_that_says_so_is_no_contradiction(self):
        said = Evidence(
            "Content Credentials", "the signer says: created by generative AI (trainedAlgorithmicMedia)", "verified"
        )
        assert self.entry("a.png", 0.9, evidence=(said,)).kind == "fake"
        assert self.entry("a.png", 0.1, evidence=(said,)).kind == "contradiction"

    @pytest.mark.usefixtures("judged")
    def test_the_command_writes_the_page_and_says_where(self, tmp_path, capsys):
        save(tmp_path / "photo.png", 10)
        page = tmp_path / "report.html"
        assert main(["report", str(tmp_path), "--output", str(page), "--no-maps"]) == 0
        assert capsys.readouterr().out == f"1 images: {page}\n"
        assert "photo.png" in page.read_text()

    @pytest.mark.slow
    def test_maps_stand_beside_the_images(self, tmp_path):
        shutil.copy(ROCKET, tmp_path)
        page = tmp_path / "report.html"
        assert main(["report", str(tmp_path), "--output", str(page)]) == 0
        assert page.read_text().count("data:image/jpeg;base64,") == 2
        assert "Bright: evidence for" in page.read_text()


@pytest.mark.usefixtures("judged")
def test_reading_ahead_keeps_the_order(tmp_path, capsys):
    files = [save(tmp_path / f"{number}.png", 20 * number) for number in range(9)]
    assert main(["check", *files, "--json"]) == 0
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == files


@pytest.mark.usefixtures("judged")
def test_a_progress_bar_is_only_shown_where_nobody_sees_the_lines(tmp_path, monkeypatch, capsys):
    files = [save(tmp_path / f"{number}.png", 10) for number in range(3)]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["check", *files]) == 0
    assert "judging: 100%" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True, write=len, flush=lambda: None))
    assert main(["check", *files]) == 0
    assert capsys.readouterr().err == ""


def test_the_label_of_a_verdict_is_that_of_its_words():
    checked = CheckedImage(file="a", verdict=Verdict("FAKE", 0.9, is_sure=True), band=None)
    assert checked.to_text() == "a: Likely AI-generated. Probability of AI-generated 0.900."
