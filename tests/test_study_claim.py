import pytest

from realfake_hf.explain_study.claim import claim_sentences


def mean(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def said(*differences, alone=(0.85, 0.8, 0.9), fill=(0.6, 0.55, 0.65)):
    """What is said of the model cnn, from pairs of differences in accuracy and in ROC AUC."""
    found = {
        "all_hidden": {"blur": {"roc_auc": mean(*fill)}},
        "untouched": {"accuracy": mean(0.963)},
        "hiding": [
            {
                "area": 0.5,
                "fill": "blur",
                "centre": {"accuracy": mean(0.7)},
                "rim": {"accuracy": mean(0.8), "roc_auc": mean(*alone)},
                "accuracy_difference": mean(*accuracy),
                "roc_auc_difference": mean(*auc),
            }
            for accuracy, auc in differences
        ],
    }
    [sentences] = claim_sentences({"models": {"cnn": found}})
    return sentences


BELOW, ABOVE, AROUND = (-0.1, -0.12, -0.08), (0.1, 0.08, 0.12), (0.01, -0.01, 0.03)


def test_the_figures_stand_in_the_sentences():
    assert said((BELOW, BELOW), (AROUND, BELOW)) == (
        "With the middle 50 % of each picture hidden by a blur, the CNN is right on 70.0 %, with as much of the rim "
        "hidden on 80.0 %, and on 96.3 % of whole pictures: \N{MINUS SIGN}10.0 points (\N{MINUS SIGN}12.0 to "
        "\N{MINUS SIGN}8.0). Of 2 pairs of an area and a fill, hiding the rim surely costs more accuracy in 0 and "
        "hiding the middle in 1, more ROC AUC in 0 and 2: the middle matters more, against the paper. The middle 50 % "
        "alone has a ROC AUC of 0.850 (0.800 to 0.900), the fill alone one of 0.600 (0.550 to 0.650), so the middle "
        "does hold useful information, against the paper."
    )


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([(ABOVE, ABOVE)], "in 1 and hiding the middle in 0, more ROC AUC in 1 and 0: the background matters more"),
        ([(BELOW, BELOW), (AROUND, AROUND)], ": the middle matters more, against the paper."),
        ([(AROUND, AROUND)], ": neither can be told to matter more."),
        ([((0.1,), (-0.1,))], ": neither can be told to matter more."),
        ([(BELOW, BELOW), (ABOVE, ABOVE)], ": which of the two matters more depends on area and fill."),
        ([(BELOW, ABOVE)], ": the two measures disagree."),
        ([(ABOVE, AROUND)], ": by accuracy alone, the background matters more, as the paper has it."),
        ([(AROUND, BELOW)], ": by ROC AUC alone, the middle matters more, against the paper."),
    ],
)
def test_every_outcome_has_its_words(differences, words):
    assert words in said(*differences)


@pytest.mark.parametrize(
    ("alone", "fill", "holds"),
    [
        ((0.7, 0.66, 0.74), (0.6, 0.55, 0.65), True),
        ((0.7, 0.64, 0.76), (0.6, 0.55, 0.65), False),
        ((0.5, 0.45, 0.55), (0.6, 0.56, 0.65), False),
        ((0.9,), (0.6,), False),
    ],
)
def test_only_a_middle_that_is_surely_worth_more_than_the_fill_holds_information(alone, fill, holds):
    sentences = said((AROUND, AROUND), alone=alone, fill=fill)
    assert ("so the middle does hold useful information" in sentences) is holds
    assert ("cannot be told to hold more than the fill lets through" in sentences) is not holds
