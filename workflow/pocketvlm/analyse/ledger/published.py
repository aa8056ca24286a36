"""Every published value of a paper as one item: where it stands, its unit, and which quantity it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pocketvlm.analyse.ledger.quantities import QUANTITIES, UNKNOWN, Quantity
from pocketvlm.config.paper import STAGES, Paper, Published

# The sections of the paper's file that hold measured values, and where these stand in the paper.
_TABLE_2, _TABLE_3 = "table 2", "table 3"
_UTILISATION, _ENERGY, _TEXT = "section 4.3", "section 4.4 and figure 4", "sections 4.2 and 4.3"


@dataclass(frozen=True)
class Item:
    """A published value.

    Attributes:
        stack: the id of its stack; empty for what is said of the phone or of all stacks.
        key: its name in the paper's file.
        quantity: what it is, and how it is measured here.
        place: where it stands in the paper.
        value: number or range; None where the paper prints none.
        text: the value in words where it is no number.
    """

    stack: str
    key: str
    quantity: Quantity
    place: str
    value: Published | None
    text: str = ""

    @property
    def printed(self) -> str:
        """The value as it stands in the ledger; empty where the paper prints none."""
        return self.text or ("" if self.value is None else str(self.value))


def items(paper: Paper) -> Iterator[Item]:
    """Yield every published value: table 2, table 3, utilisation, energy and the running text."""
    for stack in paper.stacks:
        for stage in STAGES:
            yield _item(stack.id, stage, _TABLE_2, paper.duration(stack.id, stage))
        yield _item(stack.id, "answer_tokens", _TABLE_3, paper.answer_tokens(stack.id))
        yield _decode_rate(paper, stack.id)
        for key in paper.at("utilisation", stack.id):
            yield _item(stack.id, key, _UTILISATION, paper.utilisation(stack.id, key))
        for key in ("power_w", "temp_c"):
            yield _item(stack.id, key, _ENERGY, paper.energy(stack.id, key))
        told = paper.at("text")
        for key in told.get(stack.id, {}):
            yield _item(stack.id, key, _TEXT, paper.told(stack.id, key))
    for key in paper.at("utilisation", "idle"):
        yield _item("", f"idle.{key}", _UTILISATION, paper.published("utilisation", "idle", key))
    pool = paper.published("utilisation", "memory_pool_gb")
    yield _item("", "memory_pool_gb", _UTILISATION, pool)
    battery: Mapping[str, object] = paper.at("energy", "battery")
    for key, value in battery.items():
        words = value if isinstance(value, str) else ""
        number = None if words else paper.published("energy", "battery", key)
        yield Item("", f"battery.{key}", QUANTITIES.get(f"battery.{key}", UNKNOWN), _ENERGY, number, words)


def _item(stack: str, key: str, place: str, value: Published | None) -> Item:
    return Item(stack, key, QUANTITIES.get(key, UNKNOWN), place, value)


def _decode_rate(paper: Paper, stack: str) -> Item:
    """Return the rate that follows from table 2 and table 3: the paper prints none, and the bound is one."""
    tokens, ms = paper.answer_tokens(stack), paper.duration(stack, "token_generation")
    value = None
    if tokens is not None and ms is not None:
        value = Published(round(1e3 * tokens.low / ms.high, 3), round(1e3 * tokens.high / ms.low, 3))
    key = "decode_rate"
    return Item(stack, key, QUANTITIES[key], f"follows from {_TABLE_3} and {_TABLE_2}", value)
