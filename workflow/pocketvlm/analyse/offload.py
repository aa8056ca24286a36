"""Whether a run computed where its cell says: layers and vision tower on the backend, as the framework tells.

A framework that does not find its GPU may compute on the CPU without a word more. A run of another backend
than the CPU counts only with the proof that all of it was there; where a framework tells nothing of it, that
is said and nothing is withheld.
"""

from __future__ import annotations

from collections.abc import Iterator

from pocketvlm.analyse.marks import mark
from pocketvlm.analyse.metrics import Metric
from pocketvlm.frameworks import Offload

UNTOLD = "the framework does not tell where it computes"


def offloaded(found: Offload | None, backend: str) -> Iterator[Metric]:
    """Give the metrics of where a run computed, with the mark that withholds it; nothing for the CPU.

    Args:
        found: what its output tells; None where the framework never tells.
        backend: the cell's.
    """
    if backend == "cpu":
        return
    if found is None:
        for name in ("layers_offloaded", "layers", "vision_offloaded"):
            yield Metric("run", name, None, "1", "framework", None, UNTOLD)
        return
    silent = "the output has no line about it"
    for name, number in (("layers_offloaded", found.layers), ("layers", found.of)):
        yield Metric("run", name, number, "1", "framework", None, "" if number is not None else silent)
    vision = None if found.vision is None else float(found.vision != found.cpu)
    yield Metric("run", "vision_offloaded", vision, "1", "framework", None, found.vision or silent)
    yield mark("not_offloaded", why_not(found, backend))


def why_not(found: Offload, backend: str) -> str:
    """Return why a run is none of its backend; empty when all layers and the vision tower were on it."""
    reasons = []
    if found.layers is None or found.of is None:
        reasons.append("its output does not say how many layers were")
    elif found.layers < found.of:
        reasons.append(f"{found.layers} of {found.of} layers were")
    if found.vision is None:
        reasons.append("its output does not say where the vision tower was")
    elif found.vision == found.cpu:
        reasons.append("the vision tower was on the CPU")
    if found.failure:
        reasons.append(f"it said: {found.failure}")
    return f"the run did not compute on {backend} as a whole: {', '.join(reasons)}" if reasons else ""
