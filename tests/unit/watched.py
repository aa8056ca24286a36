"""A hand-made run to which what is watched besides is added: threads, pings, frames, GPU work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from handmade import output, stderr_0_3_16, stdout_0_3_16, write_run

START_US = 7_000_000_000


def watched_run(
    folder: Path,
    *,
    threads: Sequence[tuple[int, int, str, str]] = (),
    settings: Mapping[str, Any] | None = None,
    responsiveness: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    probe: Mapping[str, Any] | None = None,
    observed: Mapping[str, Any] | None = None,
) -> None:
    """Write a run of 5 s as `handmade` has it, and add to it.

    Args:
        folder: of the run.
        threads: (t_us from the start, tid, name, allowed); the workload's own first thread is 2.
        settings, responsiveness: of the run's key inputs.
        files: more files of the run, or others in their place.
        probe: more of probe.json.
        observed: of meta.json.
    """
    write_run(folder, output(stdout_0_3_16(), stderr_0_3_16()), start_us=START_US)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    events += [
        {"t_us": START_US + t, "event": "thread", "tid": tid, "name": name, "allowed": allowed}
        for t, tid, name, allowed in threads
    ]
    events.sort(key=lambda event: event["t_us"])
    record = {**json.loads((folder / "probe.json").read_text()), "monotonic_offset_us": 0, **(probe or {})}
    content = {
        "events.jsonl": "".join(json.dumps(event) + "\n" for event in events).encode(),
        "probe.json": json.dumps(record).encode(),
        **(files or {}),
    }
    meta = json.loads((folder / "meta.json").read_text())
    for name, data in content.items():
        (folder / name).write_bytes(data)
        meta["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if settings is not None:
        meta["key_inputs"]["settings"] = settings
    if responsiveness is not None:
        meta["key_inputs"]["responsiveness"] = responsiveness
    if observed is not None:
        meta["observed"] = observed
    (folder / "meta.json").write_text(json.dumps(meta))
