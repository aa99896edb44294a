from dataclasses import fields

import numpy as np
import pytest

from realfake_hf.validation_run import ValidationRun

IS_FAKE = np.array([False, False, True, True])
CONTENT = ["frog", None, "frog", "ship"]
FIRST = np.array([0.1, 0.9, 0.8, 0.2], dtype=np.float32)
SECOND = np.array([0.0, 0.5, 0.5, 1.0], dtype=np.float32)


def begin():
    return ValidationRun.begin(ids=["a", "b", "c", "d"], is_fake=IS_FAKE, content=CONTENT)


def same(one, other):
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


def test_a_run_begins_with_its_images_and_no_epochs():
    run = begin()
    assert (run.epoch.shape, run.p_fake.shape) == ((0,), (0, 4))
    assert run.content.tolist() == ["frog", "", "frog", "ship"]


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_what_is_written_is_read_back(tmp_path, epochs):
    run = begin()
    for epoch in range(1, epochs + 1):
        run = run.with_epoch(epoch, FIRST)
    run.write(tmp_path / "run.npz")
    read = ValidationRun.read(tmp_path / "run.npz")
    assert same(read, run)
    assert [array.dtype.kind for array in (read.id, read.is_fake, read.content, read.epoch)] == ["U", "b", "U", "i"]
    assert read.p_fake.dtype == np.float32


def test_writing_again_replaces_the_file_and_leaves_no_other(tmp_path):
    for run in (begin(), begin().with_epoch(1, FIRST)):
        run.write(tmp_path / "run.npz")
    assert same(ValidationRun.read(tmp_path / "run.npz"), begin().with_epoch(1, FIRST))
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


def test_epochs_are_appended_in_order():
    run = begin().with_epoch(1, FIRST).with_epoch(2, SECOND)
    assert run.epoch.tolist() == [1, 2]
    np.testing.assert_array_equal(run.p_fake, [FIRST, SECOND])


def test_a_resumed_run_forgets_what_was_noted_of_its_epoch_and_of_later_ones():
    run = begin().with_epoch(1, FIRST).with_epoch(2, FIRST).with_epoch(3, FIRST)
    assert same(run.with_epoch(2, SECOND), begin().with_epoch(1, FIRST).with_epoch(2, SECOND))
    assert run.epoch.tolist() == [1, 2, 3]


def test_p_true_is_the_probability_of_the_true_label():
    run = begin().with_epoch(1, FIRST).with_epoch(2, SECOND)
    np.testing.assert_allclose(run.p_true(), [[0.9, 0.1, 0.8, 0.2], [1.0, 0.5, 0.5, 1.0]], atol=1e-6)


def test_accuracy_is_counted_by_content_and_epoch_without_the_unknown():
    run = begin().with_epoch(1, FIRST).with_epoch(2, 1 - FIRST)
    assert run.content_accuracy() == {"frog": [1.0, 0.0], "ship": [0.0, 1.0]}


def test_a_probability_of_one_half_is_called_real():
    run = ValidationRun.begin(ids=["a", "b"], is_fake=np.array([False, True]), content=["real", "fake"])
    assert run.with_epoch(1, np.array([0.5, 0.5])).content_accuracy() == {"fake": [0.0], "real": [1.0]}


def test_unknown_contents_have_no_accuracy():
    run = ValidationRun.begin(ids=["a", "b"], is_fake=np.array([False, True]), content=[None, None])
    assert run.with_epoch(1, np.array([0.1, 0.9])).content_accuracy() == {}
