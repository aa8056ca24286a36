"""Whether what was received gives the sender's table here, and what could be the reason if it does not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pocketvlm.analyse.report.origin import Origin
from pocketvlm.errors import IntegrityError
from pocketvlm.share.pack import described

log = logging.getLogger("pocketvlm")


def compare(sent: Path, table: Path, *, sender: Mapping[str, Any], here: Origin) -> dict[str, Any]:
    """Return how the table of `cells.csv` made here differs from the sender's.

    Args:
        sent: the sender's table.
        table: the one made here, from the same raw runs.
        sender: `origin.json` of what was received.
        here: the code and the machine at work.

    Returns:
        `{"format", "identical", "lines_that_differ", "reason", "commit", "manifest_sha256"}`; the reason is
        empty when the tables are identical.

    Raises:
        IntegrityError: they differ, while the code and the packages are the same: the sender's is not what
            their raw runs give.
    """
    differing = 0
    if sent.read_bytes() != table.read_bytes():
        lines = zip_longest(sent.read_bytes().split(b"\n"), table.read_bytes().split(b"\n"))
        differing = sum(theirs != ours for theirs, ours in lines)
    mine = described(here)
    reasons = []
    if sender["code"] != mine["code"]:
        commit = sender["commit"] or "unknown"
        reasons.append(f"the code that makes tables is another one here than the sender's, commit {commit}")
    reasons += [
        f"{name} is {mine['packages'].get(name)} here and was {version}"
        for name, version in sorted(sender["packages"].items())
        if mine["packages"].get(name) != version
    ]
    if mine["python"] != sender["python"]:
        reasons.append(f"Python is {mine['python']} here and was {sender['python']}")
    if differing and not reasons:
        raise IntegrityError(
            f"{differing} lines of the table that was sent are not what the raw runs beside it give",
            where=str(sent),
            do=f"Believe the table made here, {table}, and ask the sender",
        )
    if differing:
        log.warning("%d lines of the table differ from the sender's: %s", differing, "; ".join(reasons))
    else:
        log.info("the table is the sender's, byte by byte")
    return {
        "format": 1,
        "identical": not differing,
        "lines_that_differ": differing,
        "reason": "; ".join(reasons) if differing else "",
        "commit": sender["commit"],
        "manifest_sha256": sender["manifest_sha256"],
    }
