"""Tables of results, rendered as Markdown; `realfake_hf.pages` renders the same tables as HTML."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table with its caption, which describes it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]  # cells, rendered with `str`; the first cell of a row is its name
    align: str = "lr"  # see `markdown_table`
    folded: bool = False  # an HTML page shows only the caption until the reader opens the table
    wrap: bool = False  # an HTML page may break cells into lines

    def to_markdown(self) -> str:
        """Render the caption as a paragraph, and the table below it."""
        table = markdown_table(self.header, self.rows, align=self.align)
        return f"{self.caption}\n\n{table}" if self.caption else table


def markdown_table(header: Sequence[str], rows: Iterable[Iterable[object]], *, align: str = "lr") -> str:
    """Render a table as Markdown; cells are rendered with `str`, and vertical bars are escaped.

    `align` has one letter per column, `l` for left or `r` for right; the last letter also applies to the columns after
    it, so the default is text in the first column and numbers in the others.

    >>> print(markdown_table(["class", "n", "accuracy"], [["REAL", 20, 0.95], ["FAKE", 30, 0.9]]))
    | class | n | accuracy |
    |---|--:|--:|
    | REAL | 20 | 0.95 |
    | FAKE | 30 | 0.9 |
    """
    lines = [_line(header), "|"]
    lines[1] += "".join("--:|" if align[min(i, len(align) - 1)] == "r" else "---|" for i in range(len(header)))
    for row in rows:
        cells = list(row)
        if len(cells) != len(header):
            raise ValueError(f"expected {len(header)} cells in each row; found {len(cells)} in {cells}.")
        lines.append(_line(cells))
    return "\n".join(lines)


def plain_text(value: object) -> str:
    """Render plain JSON, such as a setting, as text.

    >>> plain_text({"seed": 0, "rate": 0.5, "labels": None})
    'seed: 0, rate: 0.5, labels: null'
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {plain_text(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:,.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def shorten(text: str, length: int) -> str:
    """Keep both ends of a text that is too long.

    >>> shorten("holiday-2026-07-14.jpg", 15)
    'holiday…-14.jpg'
    """
    return text if len(text) <= length else f"{text[: length - length // 2 - 1]}…{text[-(length // 2) :]}"


def _line(cells: Iterable[object]) -> str:
    escaped = [str(cell).replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
