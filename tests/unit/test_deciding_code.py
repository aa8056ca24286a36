"""What a rule stands on reruns it: every module of the analysis that its own code imports is in its hash."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[2] / "workflow"
ANALYSE = "pocketvlm.analyse."


def imported(package: Path) -> Iterator[str]:
    """Give the names of the modules and packages of `pocketvlm.analyse` that a package imports."""
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and f"{node.module}." == ANALYSE:
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(ANALYSE):
                yield str(node.module).removeprefix(ANALYSE).partition(".")[0]


@pytest.mark.parametrize(
    ("package", "rules"), [("compare", ("compare",)), ("tune", ("tune", "parse", "judge"))]
)
def test_what_judges_is_hashed(package: str, rules: tuple[str, ...]) -> None:
    text = "".join((WORKFLOW / f"rules/{name}.smk").read_text() for name in rules)
    # Of `raw` a comparison takes the name of a type.
    names = set(imported(WORKFLOW / "pocketvlm/analyse" / package)) - {"raw"}
    assert "ranks" in names, "else this test is of nothing"
    lacking = {name for name in names if f'"{name}"' not in text and f'"analyse/{name}' not in text}
    assert not lacking
