"""Tables for a manuscript: one description of a table, written as Markdown and as LaTeX.

Texts are given plain and escaped here, once: a model's or a device's text can neither break a table nor
become a command. LaTeX needs the package booktabs and nothing else; Markdown is GitHub's, which pandoc
reads, too.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pocketvlm.analyse.numbers import interval, number

NA = "NA"
MAX_TEXT = 2000
"""Characters of one entry or note; what is longer is cut and marked by an ellipsis."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "#": r"\#",
    "$": r"\$",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",  # a plain quote would close a quotation that nothing opened
    "`": r"\char96{}",  # ?` and !` are ligatures
    "'": "'{}",  # two apostrophes are a quotation mark
    ",": ",{}",  # two commas are a quotation mark in T1
    "-": "-{}",  # two hyphens are a dash
    "\u2013": "--",
    "\u2014": "---",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u2026": r"\ldots{}",
    "\u00a0": "~",
    "\u2009": r"\,",
    "\u202f": r"\,",
    "\u2212": "$-$",
    "\u00b1": r"$\pm$",
    "\u00b0": r"$^\circ$",
    "\u00b5": r"$\mu$",
    "\u03bc": r"$\mu$",
    "\u00b7": r"$\cdot$",
    "\u00d7": r"$\times$",
    "\u2192": r"$\rightarrow$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    "\u2248": r"$\approx$",
    "\u2020": r"\dag{}",
}
_DOUBLED = re.compile(r"([-,'])\{\}(?!\1)")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~^$!])")


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table: plain text, and notes to it.

    Attributes:
        text: plain text; empty for an empty place.
        notes: plain texts of footnotes; equal notes of a table share a mark.
    """

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table in plain text.

    Attributes:
        caption: what it shows, plain text.
        label: what LaTeX refers to it by, `[a-z0-9:-]`.
        columns: the head of each column; an entry is its text or an Entry.
        rows: of each row as many entries as there are columns; a row of None is a rule between two rows.
        align: `l`, `r` or `c` for each column; left, then right, when None.
        remarks: notes to the table as a whole, after the marked ones.
        wide: whether LaTeX lets it span two columns of text.
    """

    caption: str
    label: str
    columns: Sequence[str | Entry]
    rows: Sequence[Sequence[str | Entry] | None]
    align: Sequence[Literal["l", "r", "c"]] | None = None
    remarks: Sequence[str] = ()
    wide: bool = False

    def __post_init__(self) -> None:
        """Check what a caller could get wrong: the table's shape and its label."""
        if not self.columns or not re.fullmatch(r"[a-z0-9:.-]+", self.label):
            raise ValueError(f"the table {self.label!r} has no column or no plain label")
        widths = {len(row) for row in self.rows if row is not None} | {len(self.alignment)}
        if widths - {len(self.columns)}:
            raise ValueError(f"the table {self.label} has {len(self.columns)} columns and rows of {widths}")

    @property
    def alignment(self) -> str:
        """One letter a column."""
        return "".join(self.align) if self.align is not None else "l" + "r" * (len(self.columns) - 1)


def estimate(median: float, low: float | None, high: float | None) -> str:
    """Return `median [low, high]` with equal decimals, or the median alone where there is no interval."""
    if low is None or high is None:
        return number(median)
    middle, lower, upper = interval(median, low, high)
    return f"{middle} [{lower}, {upper}]"


def escape_latex(text: str) -> str:
    """Return untrusted text as LaTeX that prints it, on one line, whatever it holds.

    Letters of Latin scripts stay; a character that a plain pdfLaTeX cannot set is written as `[U+4F60]`.
    """
    plain = _one_line(text)
    escaped = "".join(_LATEX.get(char) or _latin(char) for char in plain)
    escaped = _DOUBLED.sub(r"\1", escaped)
    # After \\ of the row before, [ would begin an argument and * a variant.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def escape_markdown(text: str) -> str:
    """Return untrusted text as Markdown that shows it, on one line: no markup, no HTML, no link."""
    plain = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = _MARKDOWN.sub(r"\\\1", plain)
    # Bare addresses would become links.
    plain = re.sub(r":(?=//)", r"\\:", plain)
    plain = re.sub(r"(?i)\b(www)\.", r"\1\\.", plain).replace("@", r"\@")
    # What opens a list at the beginning of a line.
    return re.sub(r"^(\d*)([-+.)])(?= |$)", r"\1\\\2", plain)


def markdown(table: Table) -> str:
    """Return a table as Markdown: caption, table, notes marked (a), (b), …"""
    marks = _Marks()

    def show(entry: str | Entry) -> str:
        text, notes = marks.of(entry)
        return escape_markdown(text) + "".join(f" ({mark})" for mark in notes)

    rule = {"l": ":--", "r": "--:", "c": ":-:"}
    lines = [f"**{escape_markdown(table.caption)}**", ""]
    lines.append(_row([show(column) for column in table.columns]))
    lines.append(_row([rule[letter] for letter in table.alignment]))
    lines += [_row([show(entry) for entry in row]) for row in table.rows if row is not None]
    notes = [f"({mark}) {escape_markdown(text)}" for text, mark in marks.marks.items()]
    notes += [escape_markdown(text) for text in table.remarks]
    # A backslash at the end of a line is a line break in GitHub's Markdown and in pandoc's.
    return "\n".join(lines) + "\n" + ("\n" + "\\\n".join(notes) + "\n" if notes else "")


def latex(table: Table) -> str:
    r"""Return a table as LaTeX with booktabs: `\begin{table}` to `\end{table}`, notes below it."""
    marks = _Marks()

    def show(entry: str | Entry) -> str:
        text, notes = marks.of(entry)
        return escape_latex(text) + (f"$^{{\\mathrm{{{','.join(notes)}}}}}$" if notes else "")

    environment = "table*" if table.wide else "table"
    body = [" & ".join(show(column) for column in table.columns) + r" \\", r"\midrule"]
    body += [
        r"\midrule" if row is None else " & ".join(show(entry) for entry in row) + r" \\"
        for row in table.rows
    ]
    notes = [f"$^{{\\mathrm{{{mark}}}}}$~{escape_latex(text)}" for text, mark in marks.marks.items()]
    notes += [escape_latex(text) for text in table.remarks]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{{environment}}}",
        r"\centering",
        r"\small",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\label{{tab:{table.label}}}",
        rf"\begin{{tabular}}{{{table.alignment}}}",
        r"\toprule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if notes:
        lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}", r"\footnotesize\raggedright"]
        lines += [f"{note}\\par" for note in notes]
        lines.append(r"\end{minipage}")
    return "\n".join([*lines, rf"\end{{{environment}}}", ""])


class _Marks:
    """The marks of a table's notes, in the order in which the notes are first seen."""

    def __init__(self) -> None:
        self.marks: dict[str, str] = {}

    def of(self, entry: str | Entry) -> tuple[str, list[str]]:
        """Return an entry's text and the marks of its notes."""
        if isinstance(entry, str):
            return entry, []
        return entry.text, [self.marks.setdefault(note, _mark(len(self.marks))) for note in entry.notes]


def _mark(number: int) -> str:
    """Return a, b, …, z, aa, ab, … for 0, 1, …"""
    letters = string.ascii_lowercase
    return letters[number] if number < 26 else _mark(number // 26 - 1) + letters[number % 26]


def _row(entries: Sequence[str]) -> str:
    return "| " + " | ".join(entries) + " |"


def _one_line(text: str) -> str:
    """Return text on one line, cut at MAX_TEXT, invisible and steering characters as their code point."""
    cut = text[:MAX_TEXT] + ("…" if len(text) > MAX_TEXT else "")
    return "".join(
        f"[U+{ord(char):04X}]" if unicodedata.category(char)[0] == "C" else char
        for char in re.sub(r"[ \t\r\n\f\v\u2028\u2029]+", " ", cut).strip()
    )


def _latin(char: str) -> str:
    """Return a character as it is where every LaTeX since 2018 can set it, else its code point."""
    if " " <= char <= "~" or "\u00c0" <= char <= "\u017f":
        return char
    return f"[U+{ord(char):04X}]"
