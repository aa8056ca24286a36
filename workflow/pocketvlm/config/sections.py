"""Parts that an experiment may have or not: `soak`, `bench`, `tune`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvlm.errors import ConfigError


def require_section(
    section: str, experiment: Mapping[str, Any], name: str, folder: Path, *, what: str, example: str
) -> None:
    """Raise ConfigError when an experiment lacks a section, naming those that have it.

    Args:
        section: the key.
        experiment: the experiment's file.
        name: of the experiment.
        folder: where the experiments are.
        what: what the section asks for, in words.
        example: the section as it may be written.
    """
    if section in experiment:
        return
    pattern = re.compile(rf"^{re.escape(section)}:", re.MULTILINE)
    known = sorted(
        path.stem
        for path in folder.glob("*.yaml")
        if pattern.search(path.read_text(encoding="utf-8", errors="replace"))
    )
    raise ConfigError(
        f"the experiment {name} asks for no {what}",
        where=str(folder / f"{name}.yaml"),
        do=f"Add `{example}` to it, or choose one that has it: {', '.join(known) or 'none'}",
    )
