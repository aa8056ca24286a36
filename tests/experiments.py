"""Experiments as a user would write them, small enough for tests."""

from __future__ import annotations


def experiment_text(
    title: str,
    *cells: str,
    absent: str = "refuse",
    repeats: int = 2,
    warmups: int = 0,
    deadline_s: int = 60,
) -> str:
    """Return an experiment's file.

    Args:
        title: what it is for.
        cells: each as `cell_text` writes it.
        absent: what becomes of the cells of a phone that is not there.
        repeats, warmups: runs of each cell, measured and not.
        deadline_s: how long one run may take.
    """
    head = f"title: {title}\nabsent: {absent}\nrepeats: {repeats}\nwarmups: {warmups}\n"
    return f"{head}idle_s: 1\ndeadline_s: {deadline_s}\norder_seed: 1\ncells:\n{''.join(cells)}"


def cell_text(
    *,
    device: str = "local",
    framework: str = "llama.cpp",
    version: str = '"0.3.16"',
    quantisation: str = "Q4_0",
    workload: str = "coffee",
    settings: str = "{threads: 1}",
) -> str:
    """Return one cell of an experiment's file, by default the small preset on this machine."""
    return f"""\
  - device: {device}
    framework: {framework}
    version: {version}
    backend: cpu
    model: synthetic-llava-nano
    quantisation: {quantisation}
    workload: {workload}
    settings: {settings}
"""
