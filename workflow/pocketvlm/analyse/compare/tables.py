"""A comparison as files: the table of ratios, the answers, and the findings for programs and for people."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketvlm.analyse.compare import gather, words
from pocketvlm.analyse.compare.answers import Answers, compare_answers
from pocketvlm.analyse.compare.judge import Judged, Rules, judge, percent
from pocketvlm.analyse.figures import labels
from pocketvlm.analyse.manuscript import escape_markdown
from pocketvlm.analyse.numbers import visible as printable
from pocketvlm.provenance import atomic_file, read_json, write_json

COMPARISON = (
    *("a", "b", "of", "phase", "metric", "unit", "decides", "design", "planned", "n"),
    *("a_median", "b_median", "ratio", "ci_low", "ci_high"),
    *("worse_percent", "worse_low", "worse_high", "p", "p_corrected", "effect", "visible_percent"),
    *("verdict", "reason"),
)
ANSWERS = (
    *("a", "b", "of", "pairs", "changed", "own_a", "own_b", "first_character", "excerpt_a", "excerpt_b"),
    "reason",
)


def compare(
    comparison: Mapping[str, Any],
    *,
    runs: str | Path,
    blocks: Sequence[str | Path],
    answers: Sequence[str | Path],
    cells: str | Path,
    confidence: float,
    folder: Path,
) -> tuple[list[Judged], list[words.Finding]]:
    """Compare and write `comparison.csv`, `answers.csv`, `findings.json` and `findings.md` into a folder.

    Args:
        comparison: what is compared and by which rules, as `config.comparing` gives it.
        runs: `tables/runs.parquet`.
        blocks: `blocks/<device>.json` of every device.
        answers: `records/<device>/answers.parquet` of every device.
        cells: `cells.json`.
        confidence: of the intervals.
        folder: where to.

    Returns:
        every metric judged, and the findings.
    """
    pairs = comparison["pairs"]
    rules = Rules.of(comparison["rules"], confidence)
    listed = read_json(cells)["cells"]
    wanted = [pair[side] for pair in pairs for side in ("a", "b")]
    read = gather.read(runs, blocks, answers, listed, wanted)
    met = [gather.meet(read, pair["a"], pair["b"]) for pair in pairs]
    metrics = [
        (number, sides) for number, one in enumerate(met) for sides in gather.sides(read, one, rules.asked)
    ]
    judged = judge(metrics, rules)
    said = [compare_answers(read, one) for one in met]
    unequal = [gather.unequal_work(read, one) for one in met]
    found = words.findings(judged, said, unequal, comparison, rules)
    tags = labels.tags(cell for cell in listed if cell["cell"] in wanted)
    _write(folder / "comparison.csv", COMPARISON, (_row(one, pairs) for one in judged))
    _write(folder / "answers.csv", ANSWERS, (_answer_row(n, one, pairs) for n, one in enumerate(said)))
    first = [gather.a_first(read, one) for one in met]
    write_json(folder / "findings.json", _record(comparison, found, met, first, tags, rules))
    _write_page(folder / "findings.md", comparison, found, tags, rules)
    return judged, found


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with atomic_file(path) as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _row(one: Judged, pairs: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    sides, of = one.sides, one.difference
    numbers: dict[str, float | None] = dict.fromkeys(COMPARISON[10:22])
    if sides.a.size and sides.b.size:
        numbers |= {"a_median": float(np.median(sides.a)), "b_median": float(np.median(sides.b))}
    if of is not None:
        # Of what is better when there is more of it the cost is 1 / value: its ratio is upside down.
        ends = [math.exp(value if sides.lower_is_better else -value) for value in (of.shift, of.low, of.high)]
        numbers |= {"ratio": ends[0], "ci_low": min(ends[1:]), "ci_high": max(ends[1:])}
        numbers |= {
            "worse_percent": percent(of.shift),
            "worse_low": percent(of.low),
            "worse_high": percent(of.high),
            "p": of.p,
            "p_corrected": one.p,
            "effect": of.effect,
            "visible_percent": None if one.visible is None else percent(one.visible),
        }
    return {
        **pairs[one.pair],
        "phase": sides.phase,
        "metric": sides.metric,
        "unit": sides.unit,
        "decides": "yes" if one.decides else "no",
        "design": "interleaved" if sides.interleaved else "side by side",
        "planned": sides.planned,
        "n": min(sides.a.size, sides.b.size),
        **{name: "" if value is None else f"{value:.9g}" for name, value in numbers.items()},
        "verdict": one.verdict,
        "reason": one.reason or sides.lost,
    }


def _answer_row(number: int, one: Answers, pairs: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    return {
        **pairs[number],
        "pairs": one.pairs,
        "changed": one.changed,
        "own_a": one.own_a,
        "own_b": one.own_b,
        "first_character": "" if one.first is None else one.first + 1,
        "excerpt_a": _quoted(one.excerpt_a),
        "excerpt_b": _quoted(one.excerpt_b),
        "reason": one.reason,
    }


def _quoted(text: str) -> str:
    """Return untrusted text in quotes, so that no spreadsheet takes it for a formula; empty stays empty."""
    return json.dumps(printable(text, len(text))[0], ensure_ascii=False) if text else ""


def _record(
    comparison: Mapping[str, Any],
    found: Sequence[words.Finding],
    met: Sequence[gather.Met],
    first: Sequence[int],
    tags: Sequence[str],
    rules: Rules,
) -> dict[str, Any]:
    return {
        "format": 1,
        "experiment": comparison["experiment"],
        "a": comparison["a"],
        "b": comparison["b"],
        "tags": list(tags),
        "verdict": words.verdict(found),
        "rules": {**comparison["rules"], "confidence": rules.confidence},
        "pairs": [
            {**pair, "pairs": len(one.pairs), "interleaved": one.interleaved, "a_first": turns}
            for pair, one, turns in zip(comparison["pairs"], met, first, strict=True)
        ],
        "findings": [one.__dict__ for one in found],
    }


def heading(comparison: Mapping[str, Any], tags: Sequence[str]) -> str:
    """Return what is compared in one line: b against a."""
    told = f" ({', '.join(tags)})" if tags else ""
    return f"{comparison['b']} against {comparison['a']}{told}"


def _write_page(
    path: Path,
    comparison: Mapping[str, Any],
    found: Sequence[words.Finding],
    tags: Sequence[str],
    rules: Rules,
) -> None:
    """Write the findings as Markdown; texts of the configuration and of devices are escaped in it."""
    lines = [
        f"# {escape_markdown(heading(comparison, tags))}",
        "",
        f"Experiment {escape_markdown(comparison['experiment'])}: **{words.verdict(found)}**",
        "",
        *[f"- {'**fails:** ' if one.fails else ''}{escape_markdown(one.sentence)}." for one in found],
        "",
        f"Intervals: {100 * rules.confidence:g} %. p is corrected for how many were judged. x % slower "
        "is x % more time, of a rate x % more time for a token; x % faster is x % less.",
    ]
    with atomic_file(path) as stream:
        stream.write("\n".join(lines) + "\n")
