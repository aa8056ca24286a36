"""Every module can be the first that a script imports: no two wait for each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# One interpreter that forgets the library before each import: other packages are loaded only once.
SCRIPT = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [key for key in sys.modules if key.partition(".")[0] == "pocketvlm"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""


def test_every_module_can_be_imported_first() -> None:
    library = ROOT / "workflow"
    modules = sorted(
        ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
        for path in (library / "pocketvlm").rglob("*.py")
    )
    assert len(modules) > 100
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *modules], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == ""


def test_a_start_of_the_workflow_loads_nothing_that_draws() -> None:
    """What the Snakefile imports is loaded at every start, a dry run's too."""
    rules = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    imports = [line for line in rules.splitlines() if line.startswith("from pocketvlm")]
    assert len(imports) > 10
    heavy = {"matplotlib", "pandas", "scipy", "seaborn"}
    script = "\n".join(["import sys", *imports, f"print(sorted({heavy} & set(sys.modules)))"])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == "[]\n"
