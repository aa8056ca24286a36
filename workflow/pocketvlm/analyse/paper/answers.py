"""Table 3: the length of the answers in tokens."""

from __future__ import annotations

from collections.abc import Sequence

from pocketvlm.analyse import manuscript
from pocketvlm.analyse.manuscript import Entry
from pocketvlm.analyse.paper import columns, ours
from pocketvlm.analyse.paper.latency import (
    interval_text,
    labelled,
    median_entry,
    runs_text,
    slug,
    stack_text,
)
from pocketvlm.analyse.paper.ours import Cell, Estimate, Results
from pocketvlm.config.paper import NOT_PRINTED, Paper, Stack

QUANTITY = "answer_tokens"
BUDGET = "the whole token budget of the workload: the model did not choose where to end"


def build(
    experiment: str, paper: Paper, cells: Sequence[Cell], results: Results
) -> tuple[manuscript.Table, list[columns.Row]]:
    """Return table 3 for a manuscript and the same numbers as rows of `columns.COLUMNS`."""
    unit = str(paper.at("table3", "unit"))
    rows: list[Sequence[str | Entry] | None] = []
    numbers: list[columns.Row] = []

    def add(cell: Cell, head: str) -> None:
        value = tokens(cell, results)
        name = Entry(f"ours ({ours.kind_text([cell], short=True)})", (ours.cell_text(cell),))
        rows.append([head, name, runs_text([value]), median_entry(value), interval_text(value)])
        numbers.append(columns.ours(experiment, cell, "ours", QUANTITY, "decode tokens", unit, value))

    for stack, mine in ours.by_stack(paper, cells):
        if rows:
            rows.append(None)
        published, note = paper.answer_tokens(stack.id), told(paper, stack)
        text = NOT_PRINTED if published is None else str(published)
        entry = Entry(text, (note,) if note else ())
        rows.append([stack_text(stack), "paper", str(paper.at("protocol", "repeats")), entry, ""])
        numbers.append(columns.theirs(experiment, paper, stack, QUANTITY, unit, published, note))
        for cell in mine:
            add(cell, "")
        if not mine:
            rows.append(["", "ours", "0", Entry(manuscript.NA, (ours.NO_CELL,)), ""])
            numbers.append(columns.absent(experiment, stack, QUANTITY, unit, ours.NO_CELL))
    for cell in ours.further(cells):
        rows.append(None)
        add(cell, f"not in the paper: {cell['model']}, {cell['framework']}")
    caption = (
        f"Table 3 in the layout of {paper.citation}: average length of the answer, {unit}. "
        f"Ours ({experiment}): medians, {labelled(cells, results)}."
    )
    table = manuscript.Table(
        caption=caption,
        label=f"{slug(experiment)}:paper-table3",
        columns=["Stack", "Whose", "n", f"Answer length, {unit}", results.interval_text],
        rows=rows,
        align=["l", "l", "r", "r", "r"],
        remarks=["NA: not available here, for the reason given.", *ours.remarks(cells)],
    )
    return table, numbers


def tokens(cell: Cell, results: Results) -> Estimate:
    """Return the length of a cell's answers; with a note where the budget, not the model, decided it."""
    value, budget = results.of(cell, "decode", "tokens"), results.of(cell, "decode", "token_budget")
    if value.median is None or value.median != budget.median:
        return value
    note = "; ".join(text for text in (BUDGET, value.note) if text)
    return Estimate(value.median, value.n, value.low, value.high, note)


def told(paper: Paper, stack: Stack) -> str:
    """Return what the running text says instead, where it differs from the table; empty where it does not."""
    if stack.id not in paper.at("text"):
        return ""
    published, in_text = paper.answer_tokens(stack.id), paper.told(stack.id, "generated_tokens")
    return "" if in_text is None or in_text == published else f"the paper's text says {in_text}"
