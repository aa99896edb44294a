"""The labels REAL (0) and FAKE (1). Other modules use `is_fake` instead of label indices.

FAKE is the positive class of every precision, recall and AUC in this project.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

LabelName = Literal["REAL", "FAKE"]

LABEL_NAMES: Final[tuple[LabelName, ...]] = get_args(LabelName)
REAL: Final = 0
FAKE: Final = 1

_REAL_WORDS = {"real", "reals", "realart", "authentic", "genuine", "human", "nature", "natural", "photo", "photos"}
_FAKE_WORDS = {
    "ai", "aiart", "aiartdata", "aigenerated", "artificial", "fake", "fakes", "generated", "synthetic",
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """The output of a detector for one image.

    Attributes:
        label: `FAKE` if `p_fake` is above the threshold of the model, else `REAL`.
        p_fake: predicted probability, in [0, 1], that the image is AI-generated.
        is_sure: whether `p_fake` is outside the model's unsure band; None if the model has no band.
        is_far: whether the image is far from the training images of the model; None if unknown.

    Raises:
        ValueError: `p_fake` is outside [0, 1] or NaN.
    """

    label: LabelName
    p_fake: float
    is_sure: bool | None = None
    is_far: bool | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.p_fake <= 1:
            raise ValueError(f"expected a probability in [0, 1]; found {self.p_fake}, which is no verdict.")

    @classmethod
    def of(cls, p_fake: float, *, threshold: float = 0.5, is_sure: bool | None = None) -> Self:
        """Create a verdict from the probability of FAKE; at the threshold the label is REAL.

        >>> Verdict.of(0.5)
        Verdict(label='REAL', p_fake=0.5, is_sure=None, is_far=None)
        """
        return cls("FAKE" if p_fake > threshold else "REAL", p_fake, is_sure)

    @property
    def confidence(self) -> float:
        """The probability of the label, in [0, 1]; at least 0.5 at a threshold of 0.5."""
        return self.p_fake if self.label == "FAKE" else 1 - self.p_fake

    @property
    def p_fake_text(self) -> str:
        """`p_fake` with three decimals, never rounded to 0 or 1.

        >>> Verdict("FAKE", 0.98765).p_fake_text, Verdict("FAKE", 0.9996).p_fake_text
        ('0.988', '> 0.999')
        """
        if self.confidence >= 0.9995:  # noqa: PLR2004
            return "> 0.999" if self.label == "FAKE" else "< 0.001"
        return f"{self.p_fake:.3f}"

    @property
    def words(self) -> str:
        """The label, with a note if the model is unsure.

        >>> Verdict("FAKE", 0.6, is_sure=False).words
        'unsure, rather FAKE'
        """
        return f"unsure, rather {self.label}" if self.is_sure is False else self.label


def id2label() -> dict[int, str]:
    """Return the `id2label` of every model of this project: `{0: "REAL", 1: "FAKE"}`."""
    return dict(enumerate(LABEL_NAMES))


def label2id() -> dict[str, int]:
    """Return the `label2id` of every model of this project: `{"REAL": 0, "FAKE": 1}`."""
    return {name: index for index, name in enumerate(LABEL_NAMES)}


def parse_label(text: str) -> LabelName | None:
    """Parse a label as spelt by data sets and models; return None for other words.

    Case, punctuation and a leading index (`0_real`, `1_fake`) are ignored.

    >>> [parse_label(name) for name in ("REAL", "1_fake", "AiArtData", "nature", "AI-generated", "frog")]
    ['REAL', 'FAKE', 'FAKE', 'REAL', 'FAKE', None]
    """
    word = re.sub(r"[\W_]+|^\d+(?=\D)", "", text.lower())
    if word in _REAL_WORDS:
        return "REAL"
    return "FAKE" if word in _FAKE_WORDS else None


def fake_index(names: Mapping[int, str]) -> int:
    """Return the index of the FAKE output of a two-class model.

    Args:
        names: the `id2label` of the model.

    Raises:
        ValueError: the labels do not mean real and fake.

    >>> fake_index({0: "FAKE", 1: "REAL"})
    0
    """
    by_label = {parse_label(str(name)): index for index, name in names.items()}
    if len(names) != len(LABEL_NAMES) or set(by_label) != set(LABEL_NAMES):
        raise ValueError(
            f"expected one label that means real and one that means fake; found {dict(names)}. "
            "Set id2label in the model's config to {0: 'REAL', 1: 'FAKE'} in the order of its outputs."
        )
    return by_label["FAKE"]
