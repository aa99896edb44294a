"""Put the answers of all models into a sentence, and those to several pictures into cards with thumbnails."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

from PIL import Image

from realfake_hf.labels import probability_text
from realfake_space.answers import Answer, tone

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PURPOSES: Final = {"wild": "today's pictures", "cifake": "images of 32 x 32 pixels"}  # by the data of the training
SMALL: Final = 64  # pixels of the longer side up to which a picture is one for the models of CIFAKE
UPLOAD: Final = "Upload an image, or choose an example."
NO_MODEL: Final = "Choose a model."
THUMBNAIL: Final = 192  # pixels of the longer side
_SAYS: Final = {  # of one model, of several
    "fake": ("calls it AI-generated", "call it AI-generated"),
    "real": ("calls it real", "call it real"),
    "unsure": ("is unsure", "are unsure"),
}
_MAPS: Final = {
    "FAKE": "Bright = evidence for AI-generated.",
    "REAL": "Bright = evidence for real.",
    None: "Bright = more influence on the answer, for or against it.",
}

Item = Answer | str | None  # an answer, a message for a rejected file, or None without a file


@dataclass(frozen=True)
class Picture:
    """One of several pictures."""

    file: str  # its name
    items: Mapping[str, Item]  # by model
    is_small: bool  # whether its longer side has at most `SMALL` pixels
    thumbnail: str  # as a data URL; empty for a rejected file


def summary(items: Mapping[str, Item], purposes: Mapping[str, str], *, is_small: bool, waiting: Sequence[str]) -> str:
    """Render the answers of all models to one picture as HTML: who says what, and a sentence with counts.

    Args:
        items: by model, those that have answered.
        purposes: of the models that were evaluated, see `PURPOSES`.
        is_small: whether the picture is one for the models of small images.
        waiting: names of the models that have not answered yet.
    """
    answers = [item for item in items.values() if isinstance(item, Answer)]
    messages = [item for item in items.values() if isinstance(item, str)]
    if not answers and messages:
        return f'<div class="rf-summary rf-refused" role="alert"><p>{html.escape(messages[0])}</p></div>'
    leading = leaders(answers, purposes, is_small=is_small)
    state = f"Waiting for {_listed(waiting)}." if waiting else _sentence(answers, purposes)
    kinds = {tone(item) for item in leading}
    return (
        f'<div class="rf-summary rf-{kinds.pop() if len(kinds) == 1 else "unsure"}" role="status">'
        f'<p class="rf-verdict">{html.escape(headline(leading))}</p><p>{html.escape(state)}</p></div>'
    )


def note(text: str) -> str:
    """Render a remark in place of a summary as HTML."""
    return f'<div class="rf-summary rf-waiting"><p>{html.escape(text)}</p></div>'


def leaders(answers: Sequence[Answer], purposes: Mapping[str, str], *, is_small: bool) -> list[Answer]:
    """Return the answers of the models that are made for pictures of this size; all answers if there is none."""
    wanted = PURPOSES["cifake" if is_small else "wild"]
    return [item for item in answers if purposes.get(item.model) == wanted] or list(answers)


def headline(answers: Sequence[Answer]) -> str:
    """Return the verdict of these models in words, or that they disagree."""
    names = _listed([item.model for item in answers])
    if len({item.verdict for item in answers}) > 1:
        return f"{names} disagree"
    return f"{answers[0].verdict}, {'says' if len(answers) == 1 else 'say'} {names}"


def _sentence(answers: Sequence[Answer], purposes: Mapping[str, str]) -> str:
    """Return how many models say what, and what the models are for."""
    kinds = [tone(item) for item in answers]
    counts = [f"{n} {words[n > 1]}" for kind, words in _SAYS.items() if (n := kinds.count(kind))]
    of = "The only model" if len(answers) == 1 else f"Of {len(answers)} models,"
    start = f"{of} {_listed(counts).removeprefix('1 ') if len(answers) == 1 else _listed(counts)}"
    uses = dict.fromkeys(purposes[item.model] for item in answers if item.model in purposes)
    names = {use: [item.model for item in answers if purposes.get(item.model) == use] for use in uses}
    ends = [f"{_listed(models)} {'is' if len(models) == 1 else 'are'} for {use}" for use, models in names.items()]
    return f"{start}; {_listed(ends)}." if ends else f"{start}."


def _listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def map_legend(explains: str | None, *, is_empty: bool) -> str:
    """Render what the colours of a map mean as HTML.

    Args:
        explains: the label whose evidence the map shows, REAL or FAKE; None if its method ignores labels.
        is_empty: whether the map has one value only.
    """
    text = "No region stands out: the map is empty." if is_empty else _MAPS[explains]
    return f'<p class="rf-legend"><span class="rf-ramp" aria-hidden="true"></span>{text}</p>'


def thumbnail(view: "NDArray[np.uint8]") -> str:
    """Return an image, (height, width, 3), as a small JPEG in a data URL."""
    image, stream = Image.fromarray(view), BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def gallery(pictures: Sequence[Picture], purposes: Mapping[str, str]) -> str:
    """Render several pictures as HTML: cards with a thumbnail, the verdict, and a line for each model."""
    cards = "".join(_picture_card(picture, purposes) for picture in pictures)
    return f'<div class="rf-pictures">{cards}</div>' if cards else note("Upload images.")


def _picture_card(picture: Picture, purposes: Mapping[str, str]) -> str:
    answers = [item for item in picture.items.values() if isinstance(item, Answer)]
    file = html.escape(picture.file)
    if not answers:
        message = next((item for item in picture.items.values() if isinstance(item, str)), "")
        return (
            f'<article class="rf-picture rf-refused"><div class="rf-thumb"></div><div><p class="rf-file">{file}</p>'
            f"<p>{html.escape(message)}</p></div></article>"
        )
    leading = leaders(answers, purposes, is_small=picture.is_small)
    kinds = {tone(item) for item in leading}
    lines = "".join(_line(name, item) for name, item in picture.items.items())
    return (
        f'<article class="rf-picture rf-{kinds.pop() if len(kinds) == 1 else "unsure"}">'
        f'<div class="rf-thumb"><img src="{picture.thumbnail}" alt="{file}"></div><div><p class="rf-file">{file}</p>'
        f'<p class="rf-verdict">{html.escape(headline(leading))}</p><ul class="rf-lines">{lines}</ul></div></article>'
    )


def _line(name: str, item: Item) -> str:
    if not isinstance(item, Answer):
        return f"<li>{html.escape(name)}: {html.escape(item or '')}</li>"
    n = len(item.warnings)
    notes = f"; {n} warning{'s' if n > 1 else ''}" if n else ""
    return (
        f'<li class="rf-{tone(item)}"><span class="rf-dot" aria-hidden="true"></span>{html.escape(name)}: '
        f"{html.escape(item.verdict)}, {html.escape(probability_text(item.p_fake))}{notes}</li>"
    )
