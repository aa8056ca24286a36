"""What others measured on the same class of chip, as far as it is the same class of model and quantity."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pocketvlm.config.paper import Paper, Stack

_SIZE = re.compile(r"(?<![\w.])\d+(?:\.\d+)?b(?!\w)|(?<=[-\s])\d+(?:\.\d+)?b(?!\w)")
# From the anchor's quantity to that of a row, by the row's name and unit.
_CONVERSIONS: Mapping[tuple[str, str, str], Callable[[float], float]] = {
    ("decode rate", "decode_rate", "1/s"): lambda rate: rate,
    ("decode rate", "time per token", "ms"): lambda rate: 1e3 / rate,
    ("prefill", "prompt_eval", "ms"): lambda seconds: 1e3 * seconds,
    ("prefill", "prompt_eval", "s"): lambda seconds: seconds,
    ("image encode", "image_encode", "ms"): lambda seconds: 1e3 * seconds,
    ("image encode", "image_encode", "s"): lambda seconds: seconds,
}
# An anchor of several values names each with its unit; one of a single value has them in its words.
_KEYS = {"decode_tok_s": "decode rate", "image_encode_s": "image encode"}
_WORDS = {("decode", "tok/s"): "decode rate", ("prefill", "s"): "prefill"}


@dataclass(frozen=True)
class Measurement:
    """A value that others measured.

    Attributes:
        quantity: `decode rate` in 1/s, `prefill` or `image encode` in s.
        value: the number.
        source: model, device, runtime and where it is published.
    """

    quantity: str
    value: float
    source: str

    def as_quantity(self, name: str, unit: str) -> float | None:
        """Return the value as a row's quantity in its unit, None when it is another quantity."""
        convert = _CONVERSIONS.get((self.quantity, name, unit))
        return convert(self.value) if convert else None


def others_of(paper: Paper, stack: Stack) -> list[Measurement]:
    """Return what others measured with a model of the stack's class: the same family and, if told, size."""
    family, size = _class(stack.model)
    found: list[Measurement] = []
    source = ""
    for anchor in paper.at("anchors"):
        # "same" repeats the source of the anchor before.
        source = source if anchor["source"] == "same" else anchor["source"]
        what = str(anchor["what"]).lower()
        sizes = _SIZE.findall(what)
        if not what.startswith(family) or (sizes and size not in sizes):
            continue
        told = f"{anchor['what']}, {anchor['device']}, {anchor['runtime']}: {source}"
        found += [Measurement(quantity, value, told) for quantity, value in _values(anchor, what)]
    return found


def _values(anchor: Mapping[str, Any], what: str) -> Iterator[tuple[str, float]]:
    if isinstance(anchor["value"], Mapping):
        for key, value in anchor["value"].items():
            if key in _KEYS:
                yield _KEYS[key], float(value)
        return
    for (word, unit), quantity in _WORDS.items():
        if word in what and anchor.get("unit") == unit:
            yield quantity, float(anchor["value"])


def _class(model: str) -> tuple[str, str]:
    """Return family and size of a model's name: `imp` and `3b` of `imp-v1.5-3b`."""
    words = model.lower().split("-")
    return words[0], words[-1]
