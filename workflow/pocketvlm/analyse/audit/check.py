"""A check over published values: what it computes, and the row that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pocketvlm.analyse.audit.quantity import AbsentError, Quantity, Values
from pocketvlm.analyse.audit.row import CONSISTENT, CONTRADICTION, Row, unknown


@dataclass(frozen=True)
class Outcome:
    """Both sides of a check, computed.

    Args:
        a, b: quantities in the unit of the check, or words.
        a_where, b_where: what they were read or computed from.
        contradicts: the verdict.
        consequence: what follows from it.
    """

    a: Quantity | str
    a_where: str
    b: Quantity | str
    b_where: str
    contradicts: bool
    consequence: str


@dataclass(frozen=True)
class Check:
    """A check: its name, what must hold, and how the two sides come about.

    `compute` raises AbsentError when it lacks a value.
    """

    id: str
    subject: str
    formula: str
    unit: str
    compute: Callable[[Values], Outcome]

    def row(self, values: Values) -> Row:
        """Return the check's row; without a value that it needs it says which."""
        try:
            found = self.compute(values)
        except AbsentError as error:
            return unknown(self.id, self.subject, self.formula, self.unit, str(error))
        numbers = [side for side in (found.a, found.b) if isinstance(side, Quantity)]
        return Row(
            id=self.id,
            subject=self.subject,
            formula=self.formula,
            a=found.a.side if isinstance(found.a, Quantity) else found.a,
            a_where=found.a_where,
            b=found.b.side if isinstance(found.b, Quantity) else found.b,
            b_where=found.b_where,
            difference=numbers[0].minus(numbers[1]) if len(numbers) == 2 else None,
            unit=self.unit,
            verdict=CONTRADICTION if found.contradicts else CONSISTENT,
            consequence=found.consequence,
        )


def equal(
    a: Quantity, a_where: str, b: Quantity, b_where: str, *, else_: str, then: str = "one number, told twice"
) -> Outcome:
    """Return the outcome of a check that two quantities are the same within their rounding."""
    wrong = not a.agrees(b)
    return Outcome(a, a_where, b, b_where, wrong, else_ if wrong else then)


def at_most(a: Quantity, a_where: str, b: Quantity, b_where: str, *, else_: str, then: str) -> Outcome:
    """Return the outcome of a check that a is not more than b, whatever was rounded."""
    wrong = a.exceeds(b)
    return Outcome(a, a_where, b, b_where, wrong, else_ if wrong else then)


def same(a: str, a_where: str, b: str, b_where: str, *, else_: str, then: str = "one name") -> Outcome:
    """Return the outcome of a check that two words are the same."""
    wrong = a.casefold() != b.casefold()
    return Outcome(a, a_where, b, b_where, wrong, else_ if wrong else then)
