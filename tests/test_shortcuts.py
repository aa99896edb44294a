"""Facts that know the label are found out and named, facts that do not give chance; and the command says so."""

import json

import numpy as np
import pytest

from realfake_hf.crosseval.shortcuts import (
    SAME_ENCODING,
    FactScore,
    ShortcutAudit,
    _balanced_accuracy,
    _folds,
    audit_shortcuts,
)
from realfake_hf.estimate import Estimate
from realfake_hf.experiments.data_audit import main, to_markdown

IS_FAKE = np.arange(120) % 2 == 1


def noise(seed):
    generator, n = np.random.default_rng(seed), len(IS_FAKE)
    return {"bytes": generator.integers(500, 900, n), "mode": generator.choice(["RGB", "L", "P"], n)}


def audit_of(together, worst):
    single = (FactScore("format", 2, worst), FactScore("bytes", 9, Estimate(0.5, 0.4, 0.6, n=80)))
    return ShortcutAudit(40, 40, 80, 5, FactScore("all facts together", 9, together), single)


@pytest.mark.parametrize("seed", range(3))
def test_facts_that_know_nothing_of_the_label_give_chance(seed):
    score = audit_shortcuts(noise(seed), is_fake=IS_FAKE, seed=seed).together.balanced_accuracy
    assert score.low <= 0.5 <= score.high
    assert score.n == len(IS_FAKE)


def test_a_format_that_gives_the_label_away_is_named_and_warned_of():
    facts = noise(0) | {"format": np.where(IS_FAKE, "PNG", "JPEG")}
    audit = audit_shortcuts(facts, is_fake=IS_FAKE)
    assert audit.together.balanced_accuracy.value == 1.0
    assert (audit.worst.fact, audit.worst.values, audit.worst.balanced_accuracy.value) == ("format", 2, 1.0)
    assert audit.warns
    assert "the best single fact is format with 1.000" in audit.warning
    assert audit.to_markdown().startswith("**WARNING: file facts alone tell real from fake")


def test_shuffled_labels_kill_it():
    facts = noise(0) | {"format": np.where(IS_FAKE, "PNG", "JPEG")}
    shuffled = np.random.default_rng(1).permutation(IS_FAKE)
    audit = audit_shortcuts(facts, is_fake=shuffled)
    assert audit.together.balanced_accuracy.low <= 0.5
    assert not audit.warns
    assert audit.warning is None
    assert "WARNING" not in audit.to_markdown()


def test_a_number_that_is_fake_in_the_middle_and_real_at_both_ends_is_found():
    width = np.where(IS_FAKE, 500, np.random.default_rng(0).choice([100, 900], len(IS_FAKE)))
    assert audit_shortcuts({"width": width}, is_fake=IS_FAKE).together.balanced_accuracy.value == 1.0


def test_a_fact_that_is_the_same_for_all_or_missing_for_all_is_exactly_chance_even_where_most_are_fake():
    facts = {"exif": np.zeros(100, dtype=bool), "jpeg_luminance": np.full(100, np.nan), "mode": np.full(100, "RGB")}
    audit = audit_shortcuts(facts, is_fake=np.arange(100) >= 17)
    assert [(score.values, score.balanced_accuracy.value) for score in audit.single] == [(1, 0.5)] * 3
    assert audit.together.balanced_accuracy.value == 0.5
    assert (audit.n, audit.n_real, audit.n_fake) == (100, 17, 83)


def test_a_missing_number_is_a_value_of_its_own():
    audit = audit_shortcuts({"jpeg_luminance": np.where(IS_FAKE, np.nan, 5.0)}, is_fake=IS_FAKE)
    assert (audit.worst.values, audit.worst.balanced_accuracy.value) == (2, 1.0)


def test_copies_of_a_file_do_not_teach_their_label():
    """Each number occurs five times with one label, so a fold that shared them would know all its answers."""
    generator = np.random.default_rng(0)
    number, label = np.repeat(generator.permutation(60), 5), np.repeat(generator.permutation(60) % 2 == 1, 5)
    apart = audit_shortcuts({"bytes": number}, is_fake=label, groups=number.astype(str))
    mixed = audit_shortcuts({"bytes": number}, is_fake=label)
    assert mixed.together.balanced_accuracy.value > 0.8
    assert apart.together.balanced_accuracy.value < 0.65
    assert (apart.groups, mixed.groups) == (60, 300)


def test_equal_files_lie_in_one_fold_and_every_fold_has_its_share_of_both_labels():
    generator = np.random.default_rng(0)
    group, label = np.repeat(np.arange(50), 3), np.repeat(np.arange(50) < 20, 3)
    fold = _folds(label, group, generator)
    assert all(len(set(fold[group == one].tolist())) == 1 for one in range(50))
    assert [(label[fold == one].sum(), (~label[fold == one]).sum()) for one in range(5)] == [(12, 18)] * 5


def test_the_interval_is_that_of_drawing_pictures_of_each_label_again():
    generator = np.random.default_rng(0)
    is_right, is_fake = generator.random(200) < 0.7, np.arange(200) < 60
    drawn = [
        np.mean([generator.choice(is_right[side], side.sum()).mean() for side in (is_fake, ~is_fake)])
        for _ in range(3000)
    ]
    mean = _balanced_accuracy(is_right, is_fake, seed=0)
    assert (mean.low, mean.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.012)
    assert mean.value == pytest.approx((is_right[is_fake].mean() + is_right[~is_fake].mean()) / 2)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_audit():
    one, same, other = (audit_shortcuts(noise(0), is_fake=IS_FAKE, seed=seed) for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(
    ("together", "worst", "warns"),
    [
        (Estimate(0.6, 0.55, 0.65), Estimate(0.5, 0.4, 0.6), False),
        (Estimate(0.61, 0.45, 0.7), Estimate(0.5, 0.4, 0.6), True),  # a shortcut missed costs more than a false alarm
        (Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.59, 0.8), False),  # the best of many is high by chance
        (Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.61, 0.8), True),
    ],
)
def test_a_warning_is_due_by_the_value_of_all_facts_or_the_lower_end_of_the_worst(together, worst, warns):
    assert audit_of(together, worst).warns is warns


def test_the_warning_says_where_chance_is_not_excluded():
    sentence = "The interval includes chance."
    assert audit_of(Estimate(0.61, 0.49, 0.7), Estimate(0.6, 0.4, 0.7)).warning.endswith(sentence)
    assert sentence not in audit_of(Estimate(0.61, 0.51, 0.7), Estimate(0.6, 0.4, 0.7)).warning


def test_too_few_files_for_the_folds_are_refused():
    with pytest.raises(
        ValueError,
        match="found 6 real and 4 fake",
    ):
        audit_shortcuts({"bytes": np.arange(10)}, is_fake=np.arange(10) < 4)


@pytest.fixture
def two_formats(make_folder, picture_bytes):
    fakes = {f"fake/{n}.jpg": picture_bytes(n, "JPEG") for n in range(8)}
    return make_folder(fakes | {f"real/{n}.png": picture_bytes(100 + n) for n in range(8)})


def test_the_command_prints_the_warning_and_keeps_the_numbers(two_formats, tmp_path, capsys):
    file = tmp_path / "new" / "shortcuts.json"
    assert main(["--data", str(two_formats), "--file_facts", "--limit", "14", "--output_file", str(file)]) == 0
    kept = json.loads(file.read_text())
    assert (kept["data"], kept["as_stored"], kept["unreadable"], kept["same_encoding"]) == (
        "pictures",
        False,
        0,
        False,
    )
    assert (kept["shortcuts"]["n"], kept["shortcuts"]["n_fake"], kept["shortcuts"]["warns"]) == (14, 7, True)
    assert kept["shortcuts"]["together"]["balanced_accuracy"]["value"] == 1.0
    said = capsys.readouterr().out
    assert said == f"{to_markdown(kept)}\n" == file.with_suffix(".md").read_text()
    assert "pictures: file facts\n\n**WARNING: file facts alone" in said
    assert "| fact alone, n = 14 (7 fake) | values | balanced accuracy |" in said


def test_the_command_says_where_bytes_alone_differ_and_looks_for_near_duplicates(make_folder, capsys):
    places = [
        f"{split}/{label}/{n}.png" for split in ("train", "test") for label in ("real", "fake") for n in range(4)
    ]
    folder = make_folder(places)
    assert main(["--data", str(folder), "--file_facts", "--splits", "--against", str(folder)]) == 0
    said = capsys.readouterr().out
    assert SAME_ENCODING in said
    assert "| near-duplicates of train and test | count |" in said
    assert "| images of pictures (n = 16) with one in pictures | 16 |" in said


def test_the_command_says_that_rows_of_a_data_set_are_as_stored(capsys):
    assert main(["--data", "demo", "--file_facts", "--limit", "20"]) == 0
    assert "demo: file facts as stored in the data set" in capsys.readouterr().out


def test_the_command_refuses_an_unknown_source_before_anything_is_read(two_formats, tmp_path, capsys):
    output = ["--output_file", str(tmp_path / "new" / "a.json")]
    words = ["--data", str(two_formats), "--file_facts", "--against", "nowhere", *output]
    assert main(words) == 1
    assert "found nothing at 'nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_options_of_the_file_audit_want_it(capsys):
    with pytest.raises(SystemExit):
        main(["--data", "demo", "--splits"])
    assert "expected --file_facts with --limit, --splits and --against" in capsys.readouterr().err
