"""Missing splits are drawn from train, stratified by label and content, with copies on one side."""

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from realfake_hf.data.splits import add_missing_splits, stratified_split
from realfake_hf.labels import FAKE, REAL

Row = tuple[int, str | None, str]  # label, content, sha256


def data_set(rows: list[Row]) -> Dataset:
    label, content, digest = zip(*rows, strict=True)
    numbers = [str(n) for n in range(len(rows))]
    return Dataset.from_dict({"label": label, "content": content, "sha256": digest, "id": numbers})


def even(copies: int = 1, contents: int = 4, each: int = 100) -> Dataset:
    """Both labels, several contents with equally many images, and several copies of each image."""
    return data_set(
        [
            (label, f"c{content}", f"{label}/{content}/{n // copies}")
            for label in (REAL, FAKE)
            for content in range(contents)
            for n in range(each)
        ]
    )


def strata(rows: Dataset) -> Counter[tuple[int, str | None]]:
    return Counter(zip(rows["label"][:], rows["content"][:], strict=True))


def test_every_label_and_content_is_split_in_the_same_proportion() -> None:
    rest, taken = stratified_split(even(), share=0.05, seed=0)
    assert set(strata(taken).values()) == {5}
    assert set(strata(rest).values()) == {95}


def test_small_contents_add_up_to_the_share_of_their_label() -> None:
    rows = data_set([(label, f"content {n}", f"{label} {n}") for label in (REAL, FAKE) for n in range(200)])
    _, taken = stratified_split(rows, share=0.05, seed=0)
    assert Counter(taken["label"][:]) == {REAL: 10, FAKE: 10}


def test_unknown_contents_form_one_stratum() -> None:
    rows = data_set([(label, None, f"{label} {n}") for label in (REAL, FAKE) for n in range(100)])
    assert strata(stratified_split(rows, share=0.2, seed=0)[1]) == {(REAL, None): 20, (FAKE, None): 20}


@given(
    rows=st.lists(
        st.tuples(st.sampled_from([REAL, FAKE]), st.sampled_from([None, "a", "b", "c"]), st.integers(0, 60)),
        min_size=60,
        max_size=200,
    ),
    share=st.floats(0.1, 0.5),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40)
def test_a_split_is_complete_keeps_copies_together_and_has_about_the_share(
    rows: list[tuple[int, str | None, int]], share: float, seed: int
) -> None:
    images = data_set([(label, content, f"{label} {digest}") for label, content, digest in rows])
    largest = max(Counter(images["sha256"][:]).values())
    try:
        rest, taken = stratified_split(images, share=share, seed=seed)
    except ValueError:
        return
    assert sorted(map(int, rest["id"][:] + taken["id"][:])) == list(range(len(rows)))
    assert not set(rest["sha256"][:]) & set(taken["sha256"][:])
    for label in (REAL, FAKE):
        wanted = share * images["label"][:].count(label)
        assert abs(taken["label"][:].count(label) - wanted) <= largest * 2


def test_copies_with_both_labels_stay_on_one_side() -> None:
    rows = data_set([(n % 2, "frog", f"{n // 2}") for n in range(400)])
    rest, taken = stratified_split(rows, share=0.1, seed=0)
    assert not set(rest["sha256"][:]) & set(taken["sha256"][:])
    assert len(taken) == 40


def test_a_split_depends_on_its_seed() -> None:
    first, again, other = (stratified_split(even(), share=0.1, seed=seed)[1]["id"][:] for seed in (1, 1, 2))
    assert first == again != other


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = data_set([(n % 2, f"c{n % 3}", f"{n % 150}") for n in range(400)])
    shuffled = rows.select(np.random.default_rng(0).permutation(len(rows)))
    assert set(stratified_split(rows, share=0.1, seed=0)[1]["id"][:]) == set(
        stratified_split(shuffled, share=0.1, seed=0)[1]["id"][:]
    )


def test_rows_keep_their_order() -> None:
    for side in stratified_split(even(), share=0.3, seed=0):
        assert [int(n) for n in side["id"]] == sorted(int(n) for n in side["id"])


def test_existing_splits_are_kept() -> None:
    given_splits = DatasetDict({"train": even(), "validation": even(each=10), "test": even(each=20)})
    splits = add_missing_splits(given_splits)
    assert all(splits[name].to_dict() == rows.to_dict() for name, rows in given_splits.items())


def test_validation_is_drawn_from_train_and_an_existing_test_split_is_kept() -> None:
    test = even(each=20)
    splits = add_missing_splits(DatasetDict({"train": even(), "test": test}), validation_share=0.1)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["test"].to_dict() == test.to_dict()
    assert sorted(splits["train"]["id"][:] + splits["validation"]["id"][:]) == sorted(even()["id"][:])
    assert len(splits["validation"]) == 80


def test_a_missing_test_split_is_drawn_before_the_validation_split() -> None:
    splits = add_missing_splits(DatasetDict({"train": even(copies=2)}), validation_share=0.25, test_share=0.2)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 480, "validation": 160, "test": 160}
    digests = [set(rows["sha256"][:]) for rows in splits.values()]
    assert not digests[0] & digests[1]
    assert not digests[2] & (digests[0] | digests[1])


def test_a_source_without_train_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"expected a split named train; found \['test'\]"):
        add_missing_splits(DatasetDict({"test": even()}))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.999, 1.0])
def test_a_split_with_a_side_of_one_label_is_rejected(share: float) -> None:
    with pytest.raises(
        ValueError, match=r"expected real and fake images on both sides of a split of .*; found too few among 8"
    ):
        stratified_split(even(contents=1, each=4), share=share, seed=0)


def grouped(rows: list[Row], groups: list[str | None]) -> Dataset:
    return data_set(rows).add_column("group", groups)


def owners(seed: int = 0, n: int = 60) -> Dataset:
    """Owners of one or both labels, with 1 to 20 images each."""
    generator = np.random.default_rng(seed)
    rows: list[Row] = []
    groups: list[str | None] = []
    for owner in range(n):
        kinds = [[REAL], [FAKE], [REAL, FAKE]][owner % 3]
        for _ in range(generator.integers(1, 21)):
            rows.append((int(generator.choice(kinds)), None, f"{len(rows)}"))
            groups.append(f"owner {owner}")
    return grouped(rows, groups)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_kept_whole_and_both_labels_get_their_share(seed: int) -> None:
    images = owners(seed)
    splits = add_missing_splits(DatasetDict({"train": images}), validation_share=0.2, test_share=0.2, seed=seed)
    train, validation, test = (set(rows["group"][:]) for rows in splits.values())
    assert not train & validation
    assert not test & (train | validation)
    for label in (REAL, FAKE):
        wanted = 0.2 * images["label"][:].count(label)
        assert splits["test"]["label"][:].count(label) == pytest.approx(wanted, abs=10)  # half of the largest group


def test_copies_in_two_groups_keep_both_groups_on_one_side() -> None:
    rows = [(n % 2, None, f"{n // 2 % 100}") for n in range(400)]  # images 0 to 199 again as 200 to 399
    images = grouped(rows, [f"{'ab'[n // 200]}{n % 200 // 10}" for n in range(400)])
    rest, taken = stratified_split(images, share=0.25, seed=0)
    assert len(taken) == 100
    for column in ("group", "sha256"):
        assert not set(rest[column][:]) & set(taken[column][:])


def test_images_without_a_group_are_drawn_one_by_one() -> None:
    images = grouped([(n % 2, None, f"{n}") for n in range(400)], ["ann"] * 100 + [None] * 300)
    rest, taken = stratified_split(images, share=0.1, seed=0)
    assert Counter(taken["label"][:]) == {REAL: 20, FAKE: 20}
    assert rest["group"][:].count("ann") == 100


def test_unknown_groups_leave_a_split_as_without_the_column() -> None:
    images = even(copies=2)
    same = images.add_column("group", [None] * len(images))
    drawn = [stratified_split(one, share=0.3, seed=1)[1]["id"][:] for one in (images, same)]
    assert drawn[0] == drawn[1]


def test_a_draw_of_groups_depends_on_its_seed_and_not_on_the_order_of_the_rows() -> None:
    images = owners()
    shuffled = images.shuffle(seed=0)
    first, again, other = (
        set(stratified_split(rows, share=0.2, seed=seed)[1]["id"][:])
        for rows, seed in ((images, 1), (shuffled, 1), (images, 2))
    )
    assert first == again != other


def test_a_subset_of_images_may_divide_groups() -> None:
    images = grouped([(n % 2, None, f"{n}") for n in range(400)], [f"{n // 200}" for n in range(400)])
    assert len(stratified_split(images, share=0.1, seed=0, whole_groups=False)[1]) == 40


def test_too_few_groups_for_a_share_are_refused_with_their_number() -> None:
    images = grouped([(n % 2, None, f"{n}") for n in range(400)], [f"{n // 200}" for n in range(400)])
    with pytest.raises(ValueError, match="400 images of 2 groups"):
        stratified_split(images, share=0.1, seed=0)


def test_groups_of_one_label_are_counted_and_groups_in_two_stated_splits_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    train = grouped([(REAL, None, "1"), (FAKE, None, "2"), (REAL, None, "3")], ["ann", "bob", "bob"])
    test = grouped([(REAL, None, "4"), (FAKE, None, "5")], ["cy", "bob"])
    with caplog.at_level("INFO", logger="realfake_hf"):
        add_missing_splits(DatasetDict({"train": train, "validation": test, "test": test.select([0])}))
    assert "train: 2 groups, 1 of them with one label" in caplog.messages
    assert "1 groups are in train and validation, such as bob" in caplog.messages
