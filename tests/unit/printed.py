"""Samples of what frameworks print, written by hand: `tests/fixtures/<name>/*.yaml`, with their meaning."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from handmade import Piece, output

from pocketvlm.analyse.phases import segment
from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import Output, Report

FIXTURES = Path(__file__).parents[1] / "fixtures"
Parse = Callable[..., Report]


def samples(framework: str) -> list[Any]:
    """Every sample of a framework, as parameters of a test."""
    return [pytest.param(path, id=path.stem) for path in sorted((FIXTURES / framework).glob("*.yaml"))]


def read(path: Path) -> tuple[dict[str, Any], Output]:
    """A sample, and the output that it describes."""
    sample = yaml.safe_load(path.read_text())
    stdout, stderr = (_pieces(sample.get(name, [])) for name in ("stdout", "stderr"))
    return sample, output(stdout, stderr, wall_us=sample.get("wall_us", 5_000_000))


def _pieces(listed: list[list[Any]]) -> list[Piece]:
    return [(t, text if isinstance(text, bytes) else text.encode()) for t, text in listed]


def check(path: Path, parse: Parse, unfinished: Callable[[bytes, bytes], str | None]) -> None:
    """Assert that a sample means what is written beside it, and that the runner and the parser agree."""
    sample, seen = read(path)
    limits = {"max_tokens": sample.get("max_tokens", 4), "exact": sample.get("exact", True)}
    if "error" in sample:
        with pytest.raises(WorkloadError, match=re.escape(sample["error"])):
            parse(seen, **limits)
        return
    assert unfinished(seen.stdout.data, seen.stderr.data) is None
    report, expected = parse(seen, **limits), sample["expected"]
    by_name = {counter.name: counter for counter in report.counters}
    assert {name: _rounded(c.value_ms) for name, c in by_name.items()} == expected["counters"]
    assert [name for name, counter in by_name.items() if counter.covers] == expected["covers"]
    assert all(counter.reason for counter in report.counters if not counter.covers)
    for name, reason in expected.get("reasons", {}).items():
        assert by_name[name].reason == reason
    assert report.tokens == expected["tokens"]
    assert report.decode_steps == expected["steps"]
    assert report.first_token_us == expected["first_token_us"]
    assert report.answer == expected["answer"]
    assert sorted(report.unobservable) == expected["unobservable"]
    assert all(report.unobservable.values())
    if "boundaries" in expected:
        assert [[b.name, b.t_us, b.phase] for b in report.boundaries] == expected["boundaries"]
    assert sum(interval.duration_us for interval in segment(report.boundaries, seen.wall_us)) == seen.wall_us


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def pieces_of(data: bytes, cuts: list[int]) -> list[Piece]:
    """The bytes in pieces that end at the cuts, a millisecond apart."""
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    starts = [0, *ends[:-1]]
    return [(1000 * (n + 1), data[a:b]) for n, (a, b) in enumerate(zip(starts, ends, strict=True)) if a < b]


def survives(parse: Parse, stdout: list[Piece], stderr: list[Piece]) -> None:
    """Assert that any output is understood or refused, and that what is understood is in order."""
    seen = output(stdout, stderr)
    try:
        report = parse(seen, max_tokens=4, exact=False)
    except WorkloadError:
        return
    segment(report.boundaries, seen.wall_us)
    assert all(c.value_ms is None or (np.isfinite(c.value_ms) and c.value_ms > 0) for c in report.counters)
    assert report.answer_bytes and report.answer_bytes in seen.stdout.data
