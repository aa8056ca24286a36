"""The CPU time of a tree of processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def descendants(root: int, without: Collection[int] = ()) -> list[int]:
    """Return the process ids below `root`, parents first, except `without` and what is below these.

    `/proc/<pid>/task/<tid>/children` (proc_pid_task_children(5)) is asked where the kernel has it; it costs a
    few reads. Elsewhere every process of the machine is looked at.
    """
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return _descendants_by_parent(root, without)
    found: list[int] = []
    pending = [root]
    while pending:
        process = pending.pop(0)
        try:
            threads = os.listdir(f"/proc/{process}/task")  # noqa: PTH208 (the hot path)
        except OSError:
            continue
        for thread in threads:
            children = map(int, _read(f"/proc/{process}/task/{thread}/children").split())
            below = [child for child in children if child not in without]
            found += below
            pending += below
    return found


def _descendants_by_parent(root: int, without: Collection[int] = ()) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 (the hot path)
        if name.isdigit() and (fields := stat_fields(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    pending = [root]
    while pending:
        below = [child for child in children.get(pending.pop(0), []) if child not in without]
        found += below
        pending += below
    return found


def stat_fields(process: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the third (state) on; empty without such a process."""
    # The second field, the name, may hold spaces and brackets.
    return _read(f"/proc/{process}/stat").rpartition(")")[2].split()


def start_time(process: int) -> str | None:
    """Return when a process started, in ticks since boot: with its id it names one process for good."""
    fields = stat_fields(process)
    return fields[19] if fields and fields[0] != "Z" else None


def cpu_seconds(root: int, without: Collection[int]) -> float:
    """Return the CPU time of everything below `root`, ended children included, in seconds.

    Args:
        root: a process that adopts the orphans below it (a subreaper); its own time does not count.
        without: children of it that do not count either, nor what is below them.
    """
    ticks = 0
    fields = stat_fields(root)
    if fields:
        ticks += int(fields[13]) + int(fields[14])
    for process in descendants(root, without):
        if fields := stat_fields(process):
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:  # noqa: PTH123 (the hot path)
            return stream.read()
    except OSError:
        return ""
