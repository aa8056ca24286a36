"""The end of a comparison: its findings told, and an error where there is a regression or no judgement."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pocketvlm.errors import RegressionError

_DO = {
    "worse": "Look at its table and figure; if it is meant, raise margin_percent, or judge other metrics",
    "not judged": "Mend what the reason names: nothing is known of this metric, so it did not pass",
    "answers changed": "Compare both in answers.csv; `changed_answers: tell` lets them change",
}


def refuse(findings: Mapping[str, Any], *, where: str, log: logging.Logger) -> None:
    """Tell every finding, and raise where one fails.

    Args:
        findings: the content of `findings.json`.
        where: the page of all findings.
        log: where they are told.

    Raises:
        RegressionError: a metric that decides is worse or could not be judged, or answers must not change.
    """
    log.info("%s against %s: %s", findings["b"], findings["a"], findings["verdict"])
    for one in findings["findings"]:
        log.log(logging.WARNING if one["fails"] else logging.INFO, "%s", one["sentence"])
    failing = [one["sentence"] for one in findings["findings"] if one["fails"]]
    if failing:
        more = f"; and {len(failing) - 1} more" if len(failing) > 1 else ""
        raise RegressionError(f"{failing[0]}{more}", where=where, do=_DO[findings["verdict"]])
