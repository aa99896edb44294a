"""Fault injection: the moments at which a process is killed, the table of results, and one job that is broken."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from tests.faults.__main__ import main, to_markdown
from tests.faults.writes import RecordWrites, Write, moments_to_kill

ROOT = Path(__file__).parents[1]


def test_a_process_is_killed_at_the_first_and_the_last_write_of_each_kind():
    calls = ["mkdir a", "open a/1.json", "rename a/1.json", "open a/2.json", "open a/3.json"]
    writes = [Write(number, call, truncates=call.startswith("open")) for number, call in enumerate(calls, 1)]
    moments = [(moment.write.number, moment.is_begun) for moment in moments_to_kill(writes, 40)]
    assert moments == [(1, False), (2, False), (2, True), (3, False), (5, False), (5, True)]
    assert [moment.write.number for moment in moments_to_kill(writes, 3)] == [1, 2, 5]
    assert moments_to_kill(writes, 0) == []


def test_every_write_below_a_folder_is_watched(tmp_path):
    (tmp_path / "job").mkdir()
    code = """if True:
        import sys
        from pathlib import Path
        from tests.faults.writes import RecordWrites, watch
        job, record = map(Path, sys.argv[1:])
        watch(job, RecordWrites(record))
        (job / "run").mkdir()
        (job / "run/a.part").write_text("x")
        (job / "run/a.part").replace(job / "run/a")
        (job / "run/a").read_text()
        record.with_name("elsewhere").write_text("y")
        (job / "run/a").unlink()
    """
    record = tmp_path / "writes"
    subprocess.run([sys.executable, "-c", code, tmp_path / "job", record], check=True, cwd=ROOT)
    recorded = [(write.call, write.truncates) for write in RecordWrites(record).read()]
    assert recorded == [
        ("mkdir run", False), ("open run/a.part", True), ("rename run/a.part", False), ("remove run/a", False),
    ]  # fmt: skip


def test_the_table_has_a_row_for_each_fault_and_for_each_way_to_read_images():
    kills = {"n": 20, "killed": 18, "same": 19, "tracebacks": 1}
    disk = {"same": True, "refused": True, "traceback": False}
    cut = {"same": False, "named": False, "traceback": True}
    content = {
        "settings": {}, "commit": "0123456789", "machine": {"cores": 2, "processor": "AMD EPYC", "device": "cpu"},
        "jobs": {"training": {"kill -9": kills, "full disk": disk, "file cut short": cut}},
        "bad pictures": {"train.py, folder": {"n": 31, "named": 30, "tracebacks": 2}},
    }  # fmt: skip
    table = to_markdown(content)
    assert "| training | kill -9 | 19 of 20 (18 killed before their end) | 1 |" in table
    assert "| training | full disk | yes, first run refused | 0 |" in table
    assert "| training | file cut short | no, file not named | 1 |" in table
    assert "| train.py, folder | 30 of 31 | 2 |" in table


def test_an_unknown_job_is_refused(tmp_path, capsys):
    assert main(["--jobs", "sleeping", "--output_file", str(tmp_path / "faults.json")]) == 1
    assert "found sleeping" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("cifake_archive")
def test_a_job_that_is_killed_gives_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "faults.json"
    words = ["--jobs", "training", "--kills", "1", "--writes", "4", "--output_file", str(file)]
    assert main(words) == 0
    content = json.loads(file.read_text())
    training = content["jobs"]["training"]
    broken = [row for fault in ("kill -9", "kill -9 as it writes") for row in training[fault]["rows"]]
    assert [row for row in broken if not row["same"]] == []
    assert len(broken) == 5
    assert training["file cut short"]["same"]
    assert training["file cut short"]["named"]
    assert {row["tracebacks"] for row in content["bad pictures"].values()} == {0}
    assert all(row["named"] == row["n"] > 20 for row in content["bad pictures"].values())
