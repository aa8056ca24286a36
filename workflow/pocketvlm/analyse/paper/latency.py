"""Table 2: the latency breakdown in the paper's columns, with what each column means there and here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pocketvlm.analyse import manuscript
from pocketvlm.analyse.figures import labels
from pocketvlm.analyse.manuscript import Entry
from pocketvlm.analyse.numbers import interval, number
from pocketvlm.analyse.paper import columns, ours
from pocketvlm.analyse.paper.ours import Cell, Estimate, Results
from pocketvlm.config.paper import NOT_PRINTED, STAGES, Paper, Published, Stack

PROMPT = ("text_prefill", "image_encode", "image_prefill")
"""The phases that `prompt eval time` covers in llama.cpp; see docs/method.md."""


@dataclass(frozen=True)
class Stage:
    """A column of the paper's table.

    Attributes:
        title: its head.
        phases: the observed phases that it is here, added up run by run.
        printed: (phase, metric) of the framework's own counter.
        meaning: what it contains there and here.
    """

    title: str
    phases: tuple[str, ...]
    printed: tuple[str, str]
    meaning: str


COLUMNS = {
    "load": Stage(
        "Load",
        ("load",),
        ("load", "reported.load"),
        "Load: ours as observed is from the start of the process to the end of loading. llama.cpp's own load "
        "time ends at the first evaluation, which is the warm-up's: another quantity.",
    ),
    "image_encode": Stage(
        "Image encode",
        ("image_encode",),
        ("image_encode", "reported.image_encode"),
        "Image encode: the vision tower and projector; our phase image_encode.",
    ),
    "image_decode": Stage(
        "Image decode",
        ("image_prefill",),
        ("image_prefill", "reported.image_prefill"),
        "Image decode: llama.cpp's name for evaluating the image's tokens in the language model; our phase "
        "image_prefill.",
    ),
    "prompt_eval": Stage(
        "Prompt eval",
        PROMPT,
        ("run", "reported.prompt_eval"),
        "Prompt eval: llama.cpp's counter contains text prefill, image encode and image decode, which are "
        "therefore not to be added to it. Ours as observed is the sum of our phases text_prefill, "
        "image_encode and image_prefill, run by run.",
    ),
    "token_generation": Stage(
        "Token generation",
        ("decode",),
        ("decode", "reported.decode"),
        "Token generation: our phase decode, from the first token of the answer to the last.",
    ),
    "total": Stage(
        "Total",
        ("run",),
        ("run", "reported.total"),
        "Total: ours as observed is the wall time of the process, load and exit included; as printed it is "
        "the framework's own total, which in llama.cpp leaves out the load.",
    ),
}
assert tuple(COLUMNS) == STAGES

OBSERVED, PRINTED = "ours, observed", "ours, as printed"


def total_meaning(durations: dict[str, Published | None]) -> str:
    """Return what a published total is made of, found from the row's own numbers (ms); empty if unclear.

    Args:
        durations: the row of table 2 by stage.
    """
    total, prompt, decode = (durations[name] for name in ("total", "prompt_eval", "token_generation"))
    parts = [durations[name] for name in STAGES if name != "total"]
    if total is None or prompt is None or decode is None or not total.single:
        return ""
    # Each number is printed with one decimal: a sum of six is exact to 0.3.
    if abs(sum(part.middle for part in parts if part is not None) - total.middle) <= 0.35:
        return "This total is the sum of all stages of its row, load included."
    rest = total.middle - prompt.middle - decode.middle
    load = durations["load"]
    if load is not None and 0 <= rest < load.middle:
        return (
            f"This total is prompt eval + token generation + {rest:.1f} ms, less than the load: load is "
            "outside it, and image encode and image decode are inside prompt eval."
        )
    return "This total is neither the sum of its row's stages nor prompt eval + token generation."


def build(
    experiment: str, paper: Paper, cells: Sequence[Cell], results: Results
) -> tuple[manuscript.Table, list[columns.Row]]:
    """Return table 2 for a manuscript and the same numbers as rows of `columns.COLUMNS`."""
    rows: list[Sequence[str | Entry] | None] = []
    numbers: list[columns.Row] = []
    for stack, mine in ours.by_stack(paper, cells):
        if rows:
            rows.append(None)
        rows.append(_published(paper, stack))
        numbers += _published_numbers(experiment, paper, stack)
        for cell in mine:
            _add_cell(experiment, cell, results, rows, numbers, head="")
        if not mine:
            rows.append(["", "ours", "0", *[Entry(manuscript.NA, (ours.NO_CELL,))] * len(STAGES)])
            numbers += [columns.absent(experiment, stack, name, "ms", ours.NO_CELL) for name in STAGES]
    for cell in ours.further(cells):
        rows.append(None)
        head = f"not in the paper: {cell['model']}, {cell['framework']}"
        _add_cell(experiment, cell, results, rows, numbers, head=head)
    caption = (
        f"Table 2 in the layout of {paper.citation}: latency breakdown, {paper.at('table2', 'unit')}. "
        f"The paper's: averages of {paper.at('protocol', 'repeats')} runs on a {paper.at('device', 'name')}. "
        f"Ours ({experiment}): medians with their bootstrap interval, {labelled(cells, results)}."
    )
    table = manuscript.Table(
        caption=caption,
        label=f"{slug(experiment)}:paper-table2",
        columns=["Stack", "Whose", "n", *(stage.title for stage in COLUMNS.values())],
        rows=rows,
        align=["l", "l", *"r" * (1 + len(STAGES))],
        remarks=[
            *(stage.meaning for stage in COLUMNS.values()),
            f"{NOT_PRINTED}: the paper prints no value. NA: not available here, for the reason given.",
            *ours.remarks(cells),
        ],
        wide=True,
    )
    return table, numbers


def labelled(cells: Sequence[Cell], results: Results) -> str:
    """Return on what these cells ran, for a caption: `on local (this machine, no phone)`."""
    said = []
    for device, mine in labels.by_device(cells).items():
        none = "" if any(results.measured(cell) for cell in mine) else ", where nothing was measured"
        said.append(f"on {device} ({ours.kind_text(mine)}){none}")
    return "; ".join(said)


def stack_text(stack: Stack) -> str:
    """Return how a stack is called in a table."""
    return f"{stack.model}, {stack.framework}"


def _published(paper: Paper, stack: Stack) -> list[str | Entry]:
    durations = {name: paper.duration(stack.id, name) for name in STAGES}
    meaning = total_meaning(durations)
    entries: list[str | Entry] = [_milliseconds(value) for value in durations.values()]
    entries[-1] = Entry(_milliseconds(durations["total"]), (meaning,) if meaning else ())
    return [stack_text(stack), "paper", str(paper.at("protocol", "repeats")), *entries]


def _milliseconds(value: Published | None) -> str:
    if value is None:
        return NOT_PRINTED
    # One decimal as in the paper, also where it is 0.
    ends = [f"{end:.1f}" for end in dict.fromkeys((value.low, value.high))]
    return "–".join(ends)


def _published_numbers(experiment: str, paper: Paper, stack: Stack) -> list[columns.Row]:
    durations = {name: paper.duration(stack.id, name) for name in STAGES}
    notes = {"total": total_meaning(durations)}
    return [
        columns.theirs(
            experiment,
            paper,
            stack,
            name,
            "ms",
            value,
            notes.get(name, "") if value is not None else "not printed",
        )
        for name, value in durations.items()
    ]


def _add_cell(
    experiment: str,
    cell: Cell,
    results: Results,
    rows: list[Sequence[str | Entry] | None],
    numbers: list[columns.Row],
    *,
    head: str,
) -> None:
    """Add a cell's rows: as observed, and, where the framework printed any counter, as printed."""
    for whose, found in _values(cell, results):
        values = [value for _, _, value in found]
        name = Entry(f"{whose} ({ours.kind_text([cell], short=True)})", (ours.cell_text(cell),))
        rows.append([head, name, runs_text(values), *(median_entry(value) for value in values)])
        if any(value.low is not None for value in values):
            rows.append(["", results.interval_text, "", *(interval_text(value) for value in values)])
        numbers += [
            columns.ours(experiment, cell, whose, name, metric, "ms", value) for name, metric, value in found
        ]
        head = ""


def runs_text(values: Sequence[Estimate]) -> str:
    """Return of how many runs values are made: `5`, `3–5`, or 0 where there is none."""
    counts = sorted({value.n for value in values if value.n} or {0})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def median_entry(value: Estimate) -> Entry:
    """Return a median as it stands in a table, or NA, with its note."""
    notes = (value.note,) if value.note else ()
    if value.median is None:
        return Entry(manuscript.NA, notes)
    if value.low is None or value.high is None:
        return Entry(number(value.median), notes)
    return Entry(interval(value.median, value.low, value.high)[0], notes)


def interval_text(value: Estimate) -> str:
    """Return the interval of a median with the median's decimals; empty where there is none."""
    if value.median is None or value.low is None or value.high is None:
        return ""
    _, low, high = interval(value.median, value.low, value.high)
    return f"[{low}, {high}]"


def _values(cell: Cell, results: Results) -> Iterator[tuple[str, list[tuple[str, str, Estimate]]]]:
    """Give for each kind of row its values: (stage, where they come from, value)."""
    observed = [
        (
            name,
            f"{'+'.join(stage.phases)} duration",
            results.of(cell, stage.phases[0], "duration")
            if len(stage.phases) == 1
            else results.sum_of(cell, stage.phases),
        )
        for name, stage in COLUMNS.items()
    ]
    yield OBSERVED if results.measured(cell) else "ours", observed
    printed = [
        (name, " ".join(stage.printed), results.of(cell, *stage.printed)) for name, stage in COLUMNS.items()
    ]
    if any(value.median is not None for _, _, value in printed):
        yield PRINTED, printed


def slug(text: str) -> str:
    """Return a name as a part of a label that LaTeX refers to."""
    return "".join(
        char if char.isascii() and (char.isalnum() or char in ".-") else "-" for char in text.lower()
    )
