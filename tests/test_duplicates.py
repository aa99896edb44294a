"""Equal pictures are counted in pairs: within and across splits and labels, and against a plain count of all pairs."""

import json
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from realfake_hf.data.duplicates import find_duplicates, leak_free_mask
from realfake_hf.experiments.data_audit import main

Row = tuple[str, int, str | None, str]  # split, label, content, sha256


def data_set(rows: list[Row]) -> DatasetDict:
    splits = sorted({row[0] for row in rows})
    columns = {split: list(zip(*(row[1:] for row in rows if row[0] == split), strict=True)) for split in splits}
    return DatasetDict(
        {
            split: Dataset.from_dict({"label": labels, "content": contents, "sha256": digests})
            for split, (labels, contents, digests) in columns.items()
        }
    )


def test_pairs_are_counted_within_and_across_splits_and_labels() -> None:
    report = find_duplicates(
        data_set(
            [
                ("train", 1, "frog", "a"), ("train", 1, "frog", "a"), ("test", 1, "frog", "a"),
                ("train", 0, "cat", "b"), ("test", 1, "cat", "b"), ("test", 0, None, "c"), ("test", 0, None, "c"),
                ("train", 0, "dog", "d"), ("test", 1, "dog", "e"),
            ]
        )
    )  # fmt: skip
    assert report.n == {"test": 5, "train": 4}
    assert report.pairs == 5
    assert report.within == {"train": 1, "test": 1}
    assert report.across == {"test-train": 3}
    assert report.across_labels == 1
    assert report.leaked == 2
    assert report.by_content == {"FAKE frog": 3, "REAL unknown": 1, "mixed": 1}


rows_of_all_kinds = st.lists(
    st.tuples(
        st.sampled_from(["train", "validation", "test"]), st.integers(0, 1), st.sampled_from([None, "frog"]),
        st.sampled_from("abcdef"),
    ),
    min_size=1,
    max_size=40,
)  # fmt: skip


@given(rows=rows_of_all_kinds)
@settings(max_examples=60, deadline=None)
def test_the_counts_are_those_of_looking_at_all_pairs(rows: list[Row]) -> None:
    report = find_duplicates(data_set(rows))
    pairs = [(a, b) for a, b in combinations(rows, 2) if a[3] == b[3]]
    assert report.pairs == len(pairs) == sum(report.by_content.values())
    assert report.within == {s: sum(a[0] == b[0] == s for a, b in pairs) for s in report.n}
    across = Counter("-".join(sorted({a[0], b[0]})) for a, b in pairs if a[0] != b[0])
    assert {name: count for name, count in report.across.items() if count} == across
    assert report.across_labels == sum(a[1] != b[1] for a, b in pairs)


def test_a_picture_that_comes_ten_thousand_times_is_counted_at_once() -> None:
    start = time.perf_counter()
    report = find_duplicates(data_set([("train", n % 2, "frog", "a") for n in range(10_000)]))
    assert (report.pairs, report.across_labels) == (49_995_000, 25_000_000)
    assert time.perf_counter() - start < 5  # seconds


def test_leak_free_says_of_each_test_picture_whether_it_is_in_no_other_split() -> None:
    rows: list[Row] = [("test", 0, None, name) for name in "abcd"]
    images = data_set([*rows, ("train", 0, None, "a"), ("validation", 0, None, "c")])
    assert leak_free_mask(images).tolist() == [False, True, False, True]


def test_a_set_without_a_test_split_leaks_nothing() -> None:
    assert find_duplicates(data_set([("train", 0, None, "a"), ("train", 0, None, "a")])).leaked == 0


def test_the_report_renders_as_a_table_with_its_n() -> None:
    table = find_duplicates(data_set([("train", 0, "x", "a")] * 1_200 + [("test", 0, "x", "a")])).to_markdown()
    assert table.splitlines()[:3] == ["| exact duplicates | count |", "|---|--:|", "| equal pairs | 720,600 |"]
    assert "| within train (n = 1,200) | 719,400 |" in table
    assert "| between test and train | 1,200 |" in table
    assert "| test pictures also in train | 1 |" in table


def test_the_command_prints_the_table_and_keeps_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", "demo", "--output_file", str(tmp_path / "new" / "audit.json")]) == 0
    kept = json.loads((tmp_path / "new" / "audit.json").read_text())
    assert kept["pairs"] == 0
    assert "| equal pairs | 0 |" in capsys.readouterr().out


def test_the_command_refuses_an_unknown_source_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", "nowhere", "--output_file", str(tmp_path / "new" / "audit.json")]) == 1
    assert "found nothing at" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
