"""Campaigns that never ran: recorded noise (fixtures/compare/noise.csv) drawn anew, with a slowdown planted.

A campaign takes blocks of the recorded series one after the other, so that drift and what a run has in common
with the one before it stay; deals each two neighbours to the sides by a coin, as a block's plan does; and
multiplies what side b takes. What judges is the command's own code.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from pocketvlm.analyse.compare.gather import Sides
from pocketvlm.analyse.compare.judge import BETTER, WORSE, Judged, Rules, judge
from pocketvlm.analyse.raw import Floats

ROOT = Path(__file__).parents[1]
NOISE = ROOT / "tests/fixtures/compare/noise.csv"
BLOCK = 40
"""Runs that are drawn together: what happens within so many stays as it was."""

PHASES = ("load", "text_prefill", "image_encode", "image_prefill", "decode")


@dataclass(frozen=True)
class Noise:
    """Recorded runs of one thing in the order of time: milliseconds by phase and of all, shape (runs,).

    Where a run's phase was not seen it is NaN.
    """

    phases: Mapping[str, Floats]
    run: Floats

    @property
    def size(self) -> int:
        """How many runs there are."""
        return int(self.run.size)


def recorded(path: Path = NOISE) -> Noise:
    """Read the recorded noise."""
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    values = {name: np.array([float(row[name] or "nan") for row in rows]) for name in (*PHASES, "run")}
    return Noise({name: values[name] for name in PHASES}, values["run"])


def default_rules() -> Rules:
    """Return the rules of config/config.yaml."""
    analysis = yaml.safe_load((ROOT / "config/config.yaml").read_text())["analysis"]
    return Rules.of(analysis["compare"], analysis["bootstrap"]["confidence"])


def campaign(
    noise: Noise, pairs: int, generator: np.random.Generator, *, slower: Mapping[str, float] | float = 1.0
) -> list[tuple[int, Sides]]:
    """Return the metrics of a campaign, as the command would gather them.

    Args:
        noise: what is drawn from.
        pairs: runs of each side.
        generator: draws.
        slower: by what factor side b takes longer: in all, or by phase.
    """
    starts = generator.integers(noise.size, size=-(-2 * pairs // BLOCK))
    taken = ((starts[:, None] + np.arange(BLOCK)) % noise.size).ravel()[: 2 * pairs].reshape(pairs, 2)
    swapped = generator.integers(2, size=pairs).astype(bool)
    taken[swapped] = taken[swapped][:, ::-1]
    a, b = taken.T
    # A run that is drawn twice would give ties, which no measurement has: each draw differs by a millionth.
    other = 1 + 1e-6 * generator.random(pairs)
    everywhere = slower if isinstance(slower, float) else 1.0
    factors = dict.fromkeys(PHASES, everywhere) | ({} if isinstance(slower, float) else dict(slower))
    # A phase that was not seen in a run took some of its time all the same.
    taken_by = {name: np.nan_to_num(noise.phases[name][b]) for name in PHASES}
    added = sum((factors[name] - 1) * taken_by[name] for name in PHASES)
    rest = noise.run[b] - sum(taken_by.values())
    added = added + (everywhere - 1) * rest
    found = [_sides("run", "duration", True, noise.run[a] * other, noise.run[b] + added)]
    for name in PHASES:
        mine, theirs = noise.phases[name][a] * other, noise.phases[name][b] * factors[name]
        found.append(_sides(name, "duration", True, mine, theirs))
        if name == "decode":
            found.append(_sides(name, "tokens_per_second", False, 1e3 * 39 / mine, 1e3 * 39 / theirs))
    return [(0, sides) for sides in found]


def _sides(phase: str, metric: str, lower: bool, a: Floats, b: Floats) -> Sides:
    seen = np.isfinite(a) & np.isfinite(b)
    return Sides(phase, metric, "", lower, a[seen], b[seen], True, int(a.size))


@dataclass(frozen=True)
class Rates:
    """What came of many campaigns, shares of them.

    Attributes:
        silent: nothing at all was found, neither slower nor faster.
        found: by metric how often it was found slower.
        visible: by metric the median of the smallest slowdown said to be visible, in percent.
        covered: by metric how often the interval held what was planted, where that is one factor for all.
    """

    silent: float
    found: Mapping[str, float]
    visible: Mapping[str, float]
    covered: Mapping[str, float]


def simulate(
    noise: Noise, pairs: int, campaigns: int, *, slower: Mapping[str, float] | float, rules: Rules, seed: int
) -> Rates:
    """Judge campaigns and count what was found.

    Args:
        noise, pairs, slower: as `campaign`.
        campaigns: how many.
        rules: as the command has them.
        seed: of all draws.
    """
    silent = 0
    found = dict.fromkeys(rules.judge, 0)
    covered = dict.fromkeys(rules.judge, 0)
    visible: dict[str, list[float]] = {name: [] for name in rules.judge}
    for number in range(campaigns):
        generator = np.random.default_rng([seed, number])
        judged = judge(campaign(noise, pairs, generator, slower=slower), rules)
        silent += not any(one.verdict in (WORSE, BETTER) for one in judged)
        for one in deciding(judged):
            name = f"{one.sides.phase}.{one.sides.metric}"
            found[name] += one.verdict == WORSE
            assert one.visible is not None and one.difference is not None
            visible[name].append(100 * np.expm1(one.visible))
            truth = np.log(slower) if isinstance(slower, float) else np.nan
            covered[name] += one.difference.low <= truth <= one.difference.high
    return Rates(
        silent / campaigns,
        {name: count / campaigns for name, count in found.items()},
        {name: float(np.median(values)) for name, values in visible.items()},
        {name: count / campaigns for name, count in covered.items()},
    )


def deciding(judged: Sequence[Judged]) -> list[Judged]:
    """Return the metrics that decide."""
    return [one for one in judged if one.decides]
