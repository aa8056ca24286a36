"""The order of the runs of a block: warm-ups first, then rounds in which every cell has one run."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["idle", "warmup", "measured"]


@dataclass(frozen=True)
class PlannedRun:
    """One run that a block is to make.

    Attributes:
        cell: the cell's id; None for the idle run.
        role: what the run counts as.
        round: 0 for idle and warm-ups, from 1 for measured runs.
        position: place in the block, from 0.
    """

    cell: str | None
    role: Role
    round: int
    position: int


def plan(missing: Mapping[str, int], *, warmups: int, seed: int) -> list[PlannedRun]:
    """Plan a block: idle, warm-ups of every cell, then rounds in random order (randomised complete blocks).

    Each round holds every cell that still lacks runs once, so that a drift of the device (heat, charge)
    falls on all cells alike; the order within a round is drawn from `seed`.

    Args:
        missing: measured runs to make for each cell id; cells with none are left out entirely.
        warmups: warm-up runs for each cell.
        seed: seed of the order.

    Returns:
        The runs in the order in which to make them; empty when nothing is missing.
    """
    cells = sorted(cell for cell, count in missing.items() if count > 0)
    if not cells:
        return []
    generator = random.Random(seed)
    ordered: list[tuple[str | None, Role, int]] = [(None, "idle", 0)]
    for _ in range(warmups):
        ordered += [(cell, "warmup", 0) for cell in _shuffled(cells, generator)]
    for number in range(1, max(missing.values()) + 1):
        lacking = [cell for cell in cells if missing[cell] >= number]
        ordered += [(cell, "measured", number) for cell in _shuffled(lacking, generator)]
    return [PlannedRun(cell, role, number, position) for position, (cell, role, number) in enumerate(ordered)]


def _shuffled(cells: Sequence[str], generator: random.Random) -> list[str]:
    order = list(cells)
    generator.shuffle(order)
    return order
