"""What is compared with what: cells of two sides that are alike in everything that the sides do not name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pocketvlm.config.schema import suggest
from pocketvlm.config.study import Cell, Study
from pocketvlm.errors import ConfigError
from pocketvlm.frameworks import PHASES
from pocketvlm.frameworks.settings import resolve
from pocketvlm.stage import plain_errors

AXES = ("device", "framework", "version", "backend", "build", "model", "quantisation", "workload")
"""What a side may name besides settings; `build` is framework, version, backend and target in one."""

# Who names the first leaves the others to differ: they follow from it, or are what it is made of.
_FOLLOWS = {"build": ("framework", "version", "backend", "target"), "device": ("target",)}
_EXAMPLE = (
    'Name what differs in the experiment, `compare: {a: "version=0.3.9", b: "version=0.3.16"}`, '
    "or on the command line, --config side_a=version=0.3.9 side_b=version=0.3.16"
)
# The section of an experiment changes these of `analysis.compare`.
_RULES = (
    "judge",
    "margin_percent",
    "alpha",
    "least_pairs",
    "power",
    "most_unseen_percent",
    "changed_answers",
)

Side = dict[str, str]


def comparison_for(study: Study, config: Mapping[str, Any]) -> Callable[[object], dict[str, Any]]:
    """Return a rule's parameter: the comparison, asked for only when the rule is run.

    Args:
        study, config: as `comparison`.
    """

    def ask(_: object) -> dict[str, Any]:
        with plain_errors():
            return comparison(study, config)

    return ask


def checked(study: Study, config: Mapping[str, Any], path: str) -> Callable[[object], str]:
    """Return an input of the same rule, `path`: that nothing can be compared is said before measuring.

    Args:
        study, config: as `comparison`.
        path: the input.
    """

    def ask(_: object) -> str:
        with plain_errors():
            comparison(study, config)
        return path

    return ask


def comparison(study: Study, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the comparison that is asked for, in plain values.

    Args:
        study: the resolved experiment.
        config: the merged configuration: `side_a` and `side_b` of the command line win over `a` and `b` of
            the experiment's `compare`, whose other keys win over `analysis.compare`.

    Returns:
        `a` and `b` (what the sides are called), `pairs` (a list of `a` and `b`, cell ids, and `of`, what
        tells the pair from the others), `left_out` (cells with none like them on the other side), `rules`.

    Raises:
        ConfigError: nothing says what to compare, a side is no cell, or it is not clear which of several.
    """
    section = dict(study.experiment.get("compare", {}))
    where = f"compare of {study.paths.get('experiments', 'experiments')}/{study.name}.yaml"
    if "side_a" in config or "side_b" in config:
        where = "--config"
        section |= {"a": config.get("side_a"), "b": config.get("side_b")}
    rules = {**config["analysis"]["compare"], **{name: section[name] for name in _RULES if name in section}}
    _check_judged(rules["judge"], where)
    traits = {cell.id: _traits(cell, study) for cell in study.cells}
    if section.get("a") is None and section.get("b") is None:
        sides = _only_two(study, where)
    else:
        sides = [_side(section.get(name), name, traits, where) for name in ("a", "b")]
    if any("cell" in side for side in sides):
        sides = _what_differs(sides, traits, where)
    matched = [_matching(side, traits, name, where) for side, name in zip(sides, "ab", strict=True)]
    pairs, left_out = _paired(matched, set(sides[0]) | set(sides[1]), traits, where)
    return {
        "experiment": study.name,
        "a": _called(sides[0], sides[1]),
        "b": _called(sides[1], sides[0]),
        "pairs": _told_apart(pairs, traits),
        "left_out": left_out,
        "rules": {name: rules[name] for name in _RULES if name in rules},
    }


def _traits(cell: Cell, study: Study) -> Side:
    """Return all that a cell is, as texts; what a framework sets by default is a trait, too."""
    framework = study.frameworks[cell.framework]
    settings: Mapping[str, Any] = cell.settings
    if "adapter" in framework:
        settings = resolve(framework["adapter"], settings)
    return {
        **{name: _text(value) for name, value in settings.items()},
        **{axis: getattr(cell, axis) for axis in AXES if axis != "build"},
        "build": cell.bundle,
        "target": cell.target,
        "cell": cell.id,
    }


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _side(given: Any, name: str, traits: Mapping[str, Side], where: str) -> Side:
    """Return what a side names: a cell's id, `axis=value` with commas between, or a mapping."""
    if given is None:
        raise ConfigError(f"only one side is named, side {name} is missing", where=where, do=_EXAMPLE)
    if isinstance(given, Mapping):
        return {str(key): _text(value) for key, value in given.items()}
    if given in traits:
        return {"cell": str(given)}
    side: Side = {}
    # A comma before anything but the next axis belongs to the value: affinity=0-3,6.
    for part in re.split(r",(?=[^,=]*=)", str(given)):
        axis, equals, value = part.partition("=")
        if not equals or not axis.strip() or axis.strip() in side:
            raise ConfigError(
                f"side {name} is {str(given)!r}, which names no cells",
                where=where,
                do=f"Give the id of a cell, or axis=value. {_EXAMPLE}",
            )
        side[axis.strip()] = value.strip()
    return side


def _what_differs(sides: Sequence[Side], traits: Mapping[str, Side], where: str) -> list[Side]:
    """Return two sides that are one cell each as the id and what differs between them."""
    if any(set(side) != {"cell"} or side["cell"] not in traits for side in sides):
        raise ConfigError(
            "one side is a cell and the other is not", where=where, do="Name a cell of the experiment on both"
        )
    one, other = (traits[side["cell"]] for side in sides)
    differing = [axis for axis in {**one, **other} if one.get(axis) != other.get(axis)]
    return [{axis: mine[axis] for axis in differing if axis in mine} for mine in (one, other)]


def _matching(side: Side, traits: Mapping[str, Side], name: str, where: str) -> list[str]:
    axes = {axis for cell in traits.values() for axis in cell}
    for axis, value in side.items():
        if axis not in axes:
            raise ConfigError(
                f"no cell of the experiment has {axis!r}", where=where, do=suggest(axis, sorted(axes))
            )
        if all(cell.get(axis) != value for cell in traits.values()):
            known = sorted({cell[axis] for cell in traits.values() if axis in cell})
            raise ConfigError(
                f"side {name} names {axis}={value}, which no cell of the experiment has",
                where=where,
                do=suggest(value, known),
            )
    found = [
        cell for cell, of in traits.items() if all(of.get(axis) == value for axis, value in side.items())
    ]
    if not found:
        raise ConfigError(
            f"no cell of the experiment is {_words(side)}",
            where=where,
            do="Add it to its cells, or name less",
        )
    return found


def _paired(
    matched: Sequence[Sequence[str]], named: set[str], traits: Mapping[str, Side], where: str
) -> tuple[list[tuple[str, str]], list[str]]:
    """Pair the cells of both sides that are alike in what the sides do not name."""
    free = named | {"cell"} | {other for axis in named for other in _FOLLOWS.get(axis, ())}
    free |= {"build"} if free & {"version", "backend", "framework", "target"} else set()

    def alike(one: Side, other: Side) -> bool:
        # A setting that only one of two frameworks knows tells nothing apart.
        foreign = one["framework"] != other["framework"]
        axes = (set(one) & set(other) if foreign else set(one) | set(other)) - free
        return all(one.get(axis) == other.get(axis) for axis in axes)

    pairs = [
        (first, second)
        for first in matched[0]
        for second in matched[1]
        if alike(traits[first], traits[second])
    ]
    for side in (0, 1):
        _refuse_ambiguous([pair[side] for pair in pairs], [pair[1 - side] for pair in pairs], traits, where)
    if any(first == second for first, second in pairs):
        raise ConfigError("both sides are the same cell", where=where, do=_EXAMPLE)
    if not pairs:
        one, other = traits[matched[0][0]], traits[matched[1][0]]
        differing = sorted(axis for axis in set(one) - free if one[axis] != other.get(axis))
        raise ConfigError(
            f"no cells of both sides are alike otherwise: {matched[0][0]} and {matched[1][0]} differ in "
            f"{', '.join(differing)}, too",
            where=where,
            do="Add the cells that lack to the experiment, or name what else differs on both sides",
        )
    partnered = {cell for pair in pairs for cell in pair}
    return pairs, sorted({*matched[0], *matched[1]} - partnered)


def _refuse_ambiguous(
    cells: Sequence[str], partners: Sequence[str], traits: Mapping[str, Side], where: str
) -> None:
    for cell in cells:
        theirs = [partner for mine, partner in zip(cells, partners, strict=True) if mine == cell]
        if len(theirs) > 1:
            one, other = traits[theirs[0]], traits[theirs[1]]
            differing = sorted(
                axis
                for axis in {*one, *other} - {"cell", "build", "target"}
                if one.get(axis) != other.get(axis)
            )
            raise ConfigError(
                f"{len(theirs)} cells may be compared with {cell}: they differ in {', '.join(differing)}",
                where=where,
                do=f"Name {differing[0]} on both sides",
            )


def _only_two(study: Study, where: str) -> list[Side]:
    if len(study.cells) < 2:
        raise ConfigError(
            f"the experiment {study.name} has one cell, and there is nothing to compare it with",
            where=where,
            do="Add what it is to be compared with to its cells, or choose another experiment",
        )
    if len(study.cells) != 2:
        raise ConfigError(
            f"the experiment {study.name} has {len(study.cells)} cells and does not say which to compare",
            where=where,
            do=_EXAMPLE,
        )
    return [{"cell": cell.id} for cell in study.cells]


def _check_judged(judged: Sequence[str], where: str) -> None:
    for name in judged:
        phase, _, metric = name.partition(".")
        if phase not in (*PHASES, "run") or not re.fullmatch(r"[a-z0-9_.]+", metric):
            raise ConfigError(
                f"{name!r} is no metric of a phase",
                where=f"{where}: judge",
                do="Write phase.metric, such as decode.tokens_per_second, with a phase of "
                f"{', '.join((*PHASES, 'run'))}",
            )


def _words(side: Side) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in side.items())


def _called(side: Side, other: Side) -> str:
    """Return what a side is called: what it names and the other does not name alike."""
    own = {axis: value for axis, value in side.items() if other.get(axis) != value and axis != "cell"}
    parts = {axis: value for axis, value in own.items() if axis not in ("build", "target")}
    return _words(parts or own or side)


def _told_apart(pairs: Sequence[tuple[str, str]], traits: Mapping[str, Side]) -> list[dict[str, str]]:
    """Return the pairs, each with what tells it from the others; nothing where there is only one."""
    return [
        {"a": first, "b": second, "of": ", ".join(_telling(traits[first], [traits[one] for one, _ in pairs]))}
        for first, second in pairs
    ]


def _telling(mine: Side, all_of_them: Sequence[Side]) -> Iterator[str]:
    for axis, value in mine.items():
        varies = len({one.get(axis) for one in all_of_them}) > 1
        if varies and axis not in ("cell", "build", "target"):
            yield value if axis in AXES else f"{axis} {value}"
