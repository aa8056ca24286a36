"""Faults as named entries with their injection points, and the table of what became of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.scene import Scene

Inject = Callable[[Scene, str], None]
Says = str | None | Mapping[str, str | None]


@dataclass(frozen=True)
class Fault:
    """One way in which things go wrong.

    Attributes:
        name: what goes wrong.
        points: where it can be injected; the first is the one that is always tried.
        inject: starts the workflow and lets it go wrong at a point.
        says: a pattern of what the person is told, or one by point; None where the start goes on to the end
            all the same, and an empty one where nobody is left to be told.
        sensors: whether it is the sensors that it strikes, so that rows of the tables may lack.
        needs: why it cannot be injected on this machine; empty where it can.
    """

    name: str
    points: Sequence[str]
    inject: Inject
    says: Says
    sensors: bool = False
    needs: Callable[[], str] = field(default=lambda: "")

    def told(self, scene: Scene, point: str) -> str:
        """What the person sees of it, checked against what it should be."""
        says = self.says[point] if isinstance(self.says, Mapping) else self.says
        if says is None:
            assert scene.status == 0, f"the start failed: {scene.sentence or scene.started}"
            return "nothing: the start goes on to the end"
        assert scene.status != 0, "the start did not fail"
        assert scene.started is not None
        assert re.search(says, scene.sentence), scene.sentence or scene.started.output[-4000:]
        return scene.sentence or "nothing: the workflow is gone"


@dataclass(frozen=True)
class Survived:
    """A row of the table: a fault that was injected and survived."""

    fault: str
    point: str
    told: str
    noticed_s: float
    recovered_s: float | None
    took_s: float


FAULTS: list[Fault] = []
"""Every fault of the suite, in the order in which they were declared."""


def fault(
    name: str,
    *points: str,
    says: Says,
    sensors: bool = False,
    needs: Callable[[], str] = lambda: "",
) -> Callable[[Inject], Inject]:
    """Declare a fault by the function that injects it; the arguments are the attributes of `Fault`."""

    def declare(inject: Inject) -> Inject:
        FAULTS.append(Fault(name, points, inject, says, sensors, needs))
        return inject

    return declare


def table(rows: Sequence[Survived]) -> str:
    """The table of the faults as Markdown."""
    lines = [
        "| fault | injected | what the person is told | told after, s | next start, s |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        told = re.sub(r"[0-9a-f]{12,}", "…", row.told).replace("|", "\\|")
        again = "–" if row.recovered_s is None else f"{row.recovered_s:.1f}"
        lines.append(f"| {row.fault} | {row.point} | {told} | {row.noticed_s:.1f} | {again} |")
    total = sum(row.took_s for row in rows)
    lines += [
        "",
        f"{len(rows)} faults were injected and survived in {total:.0f} s; no finished run was lost.",
    ]
    return "\n".join(lines) + "\n"
