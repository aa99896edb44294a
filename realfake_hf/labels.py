"""The labels REAL (0) and FAKE (1). Other modules use `is_fake` instead of label indices.

FAKE is the positive class of every precision, recall and AUC in this project.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self, get_args

LabelName = Literal["REAL", "FAKE"]
Reason = Literal["score", "size", "compression", "upscaling", "views", "far"]

LABEL_NAMES: Final[tuple[LabelName, ...]] = get_args(LabelName)
REAL: Final = 0
FAKE: Final = 1

REASONS: Final[Mapping[Reason, str]] = {  # why a verdict is unsure
    "score": "its score is between those of real and AI-generated images",
    "size": "it is too small",
    "compression": "it is too heavily compressed",
    "upscaling": "it has too little detail for its size, as after upscaling or blurring",
    "views": "its parts contradict each other",
    "far": "it is far from the training images",
}

LabelWords = Mapping[str, LabelName]  # words of a source, case-folded, and what they mean; from `parse_label_words`
ALL: Final = "*"  # the word that means all images of a data set without a column of labels

_WORDS: Final[LabelWords] = {
    **dict.fromkeys(("real", "reals", "authentic", "genuine"), "REAL"),
    **dict.fromkeys(("ai", "aigen", "aigenerated", "artificial", "deepfake", "deepfakes", "fake"), "FAKE"),
    **dict.fromkeys(("fakes", "generated", "generatedai", "synthetic"), "FAKE"),
}
_CONTENT_WORDS = {"human", "humans", "nature", "natural", "photo", "photos"}  # real, unless they name a content
_FILLERS = re.compile(
    r"art|artworks?|by|class|created|data|dataset|faces?|images?|imgs?|label|made|photos?|pics?|pictures?|samples?|set"
)
_CONTENT_FILLERS = {"art", "by", "class", "created", "label", "made"}
_TRUTH = {"0": False, "0.0": False, "false": False, "no": False, "1": True, "1.0": True, "true": True, "yes": True}


class NotFiniteError(ValueError):
    """The logits of an image are NaN or infinite, so that there is no verdict."""

    def __init__(self, name: str, row: int) -> None:
        super().__init__(name, row)
        self.row = row  # in its batch

    def __str__(self) -> str:
        return f"expected finite logits for {self.args[0]}; found NaN or infinity, which is no verdict."


@dataclass(frozen=True)
class Verdict:
    """The output of a detector for one image.

    Attributes:
        label: `FAKE` if `p_fake` is above the threshold of the model, else `REAL`.
        p_fake: predicted probability, in [0, 1], that the image is AI-generated.
        is_sure: whether there is no reason to be unsure; None if the model has neither a band nor limits.
        is_far: whether the image is far from the training images of the model; None if unknown.
        reasons: why the verdict is unsure.
    """

    label: LabelName
    p_fake: float
    is_sure: bool | None = None
    is_far: bool | None = None
    reasons: tuple[Reason, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.p_fake <= 1:
            raise ValueError(f"expected a probability in [0, 1]; found {self.p_fake}, which is no verdict.")

    @classmethod
    def of(
        cls,
        p_fake: float,
        *,
        threshold: float = 0.5,
        is_far: bool | None = None,
        reasons: tuple[Reason, ...] | None = None,
    ) -> Self:
        """Create a verdict from the probability of FAKE; at the threshold the label is REAL.

        >>> Verdict.of(0.5)
        Verdict(label='REAL', p_fake=0.5, is_sure=None, is_far=None, reasons=())
        """
        is_sure = None if reasons is None else not reasons
        return cls("FAKE" if p_fake > threshold else "REAL", p_fake, is_sure, is_far, reasons or ())

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
        return probability_text(self.p_fake)

    @property
    def words(self) -> str:
        """The label, with a note if the model is unsure.

        >>> Verdict("FAKE", 0.6, is_sure=False).words
        'unsure, rather FAKE'
        """
        return f"unsure, rather {self.label}" if self.is_sure is False else self.label

    @property
    def why(self) -> str:
        """The reasons in words; empty if there are none."""
        return " and ".join(REASONS[each] for each in self.reasons)

    @property
    def reason(self) -> str | None:
        """The reasons as a sentence; None if there are none.

        >>> Verdict("FAKE", 0.9, is_sure=False, reasons=("size", "compression")).reason
        'Unsure because it is too small and it is too heavily compressed.'
        """
        return f"Unsure because {self.why}." if self.reasons else None


def id2label() -> dict[int, str]:
    """Return the `id2label` of every model of this project: `{0: "REAL", 1: "FAKE"}`."""
    return dict(enumerate(LABEL_NAMES))


def label2id() -> dict[str, int]:
    """Return the `label2id` of every model of this project: `{"REAL": 0, "FAKE": 1}`."""
    return {name: index for index, name in enumerate(LABEL_NAMES)}


def parse_label(text: str) -> LabelName | None:
    """Parse a label as spelt by data sets and models; return None for other words.

    Case, punctuation, a leading index (`0_real`, `1_fake`) and words such as `images` or `by` are ignored. Any other
    word makes the meaning uncertain: `not_ai` and `real_vs_fake` are no labels.

    >>> [parse_label(name) for name in ("REAL", "1_fake", "AiArtData", "by human", "AI-generated", "frog", "not_ai")]
    ['REAL', 'FAKE', 'FAKE', 'REAL', 'FAKE', None, None]
    """
    words = split_words(text)
    words = words[1:] if words and words[0].isdecimal() else words
    if "".join(word for word in words if word not in _CONTENT_FILLERS) in _CONTENT_WORDS:
        return "REAL"
    core = "".join(word for word in words if not _FILLERS.fullmatch(word))
    return _WORDS.get(core) or _WORDS.get(re.sub(rf"(?<=.)(?:{_FILLERS.pattern})+$", "", core))


def split_words(text: str) -> list[str]:
    """Split a name at punctuation, digits and capitals into lower-case words and numbers.

    >>> split_words("AiArtData"), split_words("AI-generated"), split_words("val2017")
    (['ai', 'art', 'data'], ['ai', 'generated'], ['val', '2017'])
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    return re.findall(r"[^\W\d_]+|\d+|[!¬≠]", spaced.lower())  # a negation is a word


def flag_label(column: str) -> LabelName | None:
    """Return the label that true or 1 means in a column of this name; None if the name does not say.

    >>> [flag_label(column) for column in ("is_ai", "fake", "isReal", "label", "is_human", "not_fake")]
    ['FAKE', 'FAKE', 'REAL', None, None, None]
    """
    core = "".join(split_words(column))
    return _WORDS.get(core) or _WORDS.get(core.removeprefix("is"))


def is_truth_value(text: str) -> bool:
    """Return whether a text is a truth value such as 0, 1, true or no."""
    return text.strip().casefold() in _TRUTH


def read_label(text: str, *, column: str, words: LabelWords) -> LabelName | None:
    """Read a value of a label column; return None if its meaning is uncertain.

    The given words take precedence; 0, 1 and truth values have a meaning in a column such as `is_ai`.
    """
    value = text.strip().casefold()
    if value in words:
        return words[value]
    if value not in _TRUTH:
        return parse_label(text)
    label = flag_label(column)
    return label if label is None or _TRUTH[value] else LABEL_NAMES[1 - LABEL_NAMES.index(label)]


def parse_label_words(text: str | None) -> LabelWords:
    """Parse the words of a source that mean real and fake, such as `0=REAL,1=FAKE`.

    The word `*` means all images of a Hugging Face data set without a column of labels.

    Raises:
        ValueError: it is not a list of WORD=REAL or WORD=FAKE, or a word is repeated.

    >>> parse_label_words("0=REAL,Midjourney=FAKE")
    {'0': 'REAL', 'midjourney': 'FAKE'}
    """
    pairs = [pair.rpartition("=")[::2] for pair in text.split(",")] if text is not None else []
    words = {word.strip().casefold(): name.strip().upper() for word, name in pairs}
    if len(words) < len(pairs) or "" in words or not set(words.values()) <= set(LABEL_NAMES):
        raise ValueError(
            f"expected --labels as distinct words with REAL or FAKE, such as 0=REAL,1=FAKE; found {text!r}."
        )
    return words  # type: ignore[return-value]  # the names are checked above


@dataclass(kw_only=True)
class LabelArguments:
    """What the labels of a source mean."""

    labels: str | None = field(
        default=None,
        metadata={
            "help": "Words of the source for the labels, where unclear: 0=REAL,1=FAKE; *=REAL without a label column."
        },
    )

    def __post_init__(self) -> None:
        parse_label_words(self.labels)


def fake_index(names: Mapping[int, str]) -> int:
    """Return the index of the FAKE output of a two-class model with these names, its `id2label`.

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


def probability_text(p: float) -> str:
    """Return a probability with three decimals, never rounded to 0 or 1.

    >>> probability_text(0.98765), probability_text(0.0004)
    ('0.988', '< 0.001')
    """
    low, high = 0.0005, 0.9995
    return "< 0.001" if p < low else f"{p:.3f}" if p < high else "> 0.999"
