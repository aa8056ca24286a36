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
