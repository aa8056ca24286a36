"""Why values are missing or withheld, in fewer words: texts that differ in their numbers only become one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# A number of its own: no part of a name (`policy0`, `Q4_0`), of a path or of a version.
_NUMBER = re.compile(r"(?<![\w./\-])\d+(?:\.\d+)?(?![\w/\-]|\.\d)")
_COUNTED = re.compile(r"(\d+) of (\d+) runs: (.*)", re.DOTALL)


def template(text: str) -> str:
    """Return a text with its numbers left out: what tells one kind of reason from another."""
    return _NUMBER.sub("#", text)


def merged(texts: Iterable[str]) -> str:
    """Return texts of one template as one: a number that differs becomes `least to greatest`."""
    listed = list(dict.fromkeys(texts))
    slots = zip(*(_NUMBER.findall(text) for text in listed), strict=True)
    spans = []
    for values in slots:
        low, high = min(values, key=float), max(values, key=float)
        spans.append(low if float(low) == float(high) else f"{low} to {high}")
    filled = iter(spans)
    return _NUMBER.sub(lambda _: next(filled), listed[0])


def condensed(texts: Iterable[str]) -> list[str]:
    """Return one text for each template, in the order in which they first come."""
    kinds: dict[str, list[str]] = {}
    for text in texts:
        kinds.setdefault(template(text), []).append(text)
    return [merged(kind) for kind in kinds.values()]


def condensed_gate(gate: str) -> str:
    """Return a `gate` of `cells.csv` with its runs added up by the kind of reason.

    `1 of 5 runs: it lasted 51 ms; 1 of 5 runs: it lasted 54 ms` becomes `2 of 5 runs: it lasted 51 to 54 ms`.
    A text of another form is returned as it is.
    """
    parts = re.split(r"; (?=\d+ of \d+ runs: )", gate)
    kinds: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for part in parts:
        match = _COUNTED.fullmatch(part)
        if match is None:
            return gate
        count, texts = kinds.get((match[2], template(match[3])), (0, []))
        kinds[match[2], template(match[3])] = (count + int(match[1]), [*texts, match[3]])
    return "; ".join(
        f"{count} of {total} runs: {merged(texts)}" for (total, _), (count, texts) in kinds.items()
    )


def listing(words: Iterable[str], *, last: str = "and") -> str:
    """Return `a, b and c`."""
    listed = list(words)
    return f" {last} ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)


def missing(identity: Mapping[str, Any], *quantities: str) -> list[tuple[str, tuple[str, ...], str]]:
    """Return what a device does not expose, of all quantities if none is named: (quantity, components, why).

    Components whose reasons differ in the component's own name only share one: `no thermal zone of a cpu, gpu
    or skin`.
    """
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for entry in identity["missing"]:
        quantity, component, reason = (str(entry[name]) for name in ("quantity", "component", "reason"))
        if not quantities or quantity in quantities:
            kind = re.sub(rf"\b{re.escape(component)}\b", "#", reason, count=1)
            kinds.setdefault((quantity, kind), []).append((component, reason))
    out = []
    for (quantity, kind), found in kinds.items():
        components = tuple(dict.fromkeys(component for component, _ in found))
        several = len({reason for _, reason in found}) > 1
        why = kind.replace("#", listing(components, last="or"), 1) if several else found[0][1]
        out.append((quantity, components, why))
    return out


def missing_text(identity: Mapping[str, Any], *quantities: str) -> str:
    """Return why a device exposes none of these quantities; empty when its identity does not say."""
    return "; ".join(dict.fromkeys(why for _, _, why in missing(identity, *quantities)))
