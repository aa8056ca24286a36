"""The runs behind the numbers: their raw files with hashes, and what the model answered."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from pocketvlm.analyse.numbers import size, slug, visible
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import check_sha256, read_json

ANSWER_LIMIT = 4000
"""Characters of an answer on the page; the whole of it is in the run's stdout."""


@dataclass(frozen=True)
class RawFile:
    """A file of a run: its name, link, size as text and hash."""

    name: str
    href: str
    size: str
    sha256: str


@dataclass(frozen=True)
class Run:
    """A measured run: where it stood in its block, when it started, what was recorded."""

    id: str
    name: str
    short: str
    href: str
    round: int
    position: int
    started: str
    argv: tuple[str, ...]
    files: tuple[RawFile, ...]
    workload: Mapping[str, Any]
    device: str = ""
    state: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """A text that the model gave, and the runs that gave it."""

    text: str
    cut: int
    tokens: str
    sha256: str
    runs: tuple[str, ...]


def run_id(name: str) -> str:
    """Return the id of a run on the page."""
    key, number = name.split("/")
    return slug("run", key[:16], number)


def read_runs(blocks: Sequence[Path], raw: Path, page: Path) -> dict[str, Run]:
    """Return the measured runs of blocks by name `<key>/<nn>`.

    Args:
        blocks: `blocks/<device>.json` files.
        raw: the raw store.
        page: the report's file, which links are relative to.

    Raises:
        IntegrityError: a run that a block lists is not in the store, or is not what the block says.
    """
    base = quote(os.path.relpath(raw.resolve(), page.resolve().parent))
    found: dict[str, Run] = {}
    for block in blocks:
        for entry in read_json(block)["runs"]:
            if entry["role"] != "measured":
                continue
            name = str(entry["run"])
            meta_path = raw / name / "meta.json"
            if not meta_path.is_file():
                raise IntegrityError(
                    f"Run {name} of {block.name} is not in the raw store",
                    where=str(meta_path),
                    do="Restore its folder, or measure the block again",
                )
            check_sha256(meta_path, entry["meta_sha256"], do="Restore the run's folder from a copy")
            meta = read_json(meta_path)
            own = f"{base}/{quote(name)}/"
            files = [
                RawFile("meta.json", f"{own}meta.json", size(meta_path.stat().st_size), entry["meta_sha256"])
            ]
            files += [
                RawFile(file, own + quote(file), size(int(about["bytes"])), str(about["sha256"]))
                for file, about in sorted(meta["files"].items())
            ]
            key, number = name.split("/")
            found[name] = Run(
                id=run_id(name),
                name=name,
                short=f"{key[:8]}/{number}",
                href=own,
                round=int(entry["round"]),
                position=int(entry["position"]),
                started=str(meta["started"]),
                argv=tuple(str(word) for word in meta["argv"]),
                files=tuple(files),
                workload=meta["key_inputs"].get("workload", {}),
                device=str(meta["key_inputs"].get("device", {}).get("id", "")),
                state=meta.get("state"),
            )
    return found


def read_answers(paths: Sequence[Path], runs: Sequence[str]) -> list[Answer]:
    """Return the different answers of some runs, the most frequent first.

    Args:
        paths: `answers.parquet` files, of which other runs' rows are passed over.
        runs: names of runs.
    """
    frames = [pd.read_parquet(path) for path in paths]
    told = (
        pd.concat(frames, ignore_index=True)
        if frames
        else pd.DataFrame(columns=["run", "text", "tokens", "sha256"])
    )
    told = told[told["run"].isin(set(runs))].fillna({"text": "", "sha256": ""})
    out = []
    for text, group in told.groupby("text", sort=True):
        shown, cut = visible(str(text), ANSWER_LIMIT)
        tokens = sorted({int(count) for count in group["tokens"].dropna()})
        counted = " or ".join(str(count) for count in tokens)
        hashes = sorted(set(group["sha256"].astype(str)))
        out.append(Answer(shown, cut, counted, ", ".join(hashes), tuple(sorted(group["run"].astype(str)))))
    return sorted(out, key=lambda answer: (-len(answer.runs), answer.text))
