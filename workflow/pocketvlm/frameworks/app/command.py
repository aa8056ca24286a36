"""An app has no command line: what is measured is what its script does (`measure.app`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.errors import ConfigError

WEIGHTS = "app"
"""Its weights are in the app; the app's entry says which models it has."""
REQUIRED: tuple[str, ...] = ()
OPTIONAL: tuple[str, ...] = ()
ROLES: tuple[str, ...] = ()
SETTINGS: Mapping[str, Any] = {}


def resolve_settings(settings: Mapping[str, Any], *, where: str = "settings") -> dict[str, Any]:
    """Return all settings: none, for what an app sets is part of its script.

    Raises:
        ConfigError: there is a setting.
    """
    for name in settings:
        raise ConfigError(
            f"an app has no setting {name!r}",
            where=f"{where}.{name}",
            do="Take it out; what can be chosen in the app, its script may tap",
        )
    return {}


def unfinished(stdout: bytes, stderr: bytes) -> str | None:
    """Return None: a script that came to its end is a whole run."""
    return None


def unavailable(
    *,
    model: Mapping[str, Any],
    workload: Mapping[str, Any],
    settings: Mapping[str, Any],
    backend: str,
) -> str | None:
    """Return None: what an app cannot do, its entry tells (`config.apps.unavailable`)."""
    return None


def environment(*, backend: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return no variables."""
    return {}


def command(**_: Any) -> list[str]:
    """Refuse: a cell of this adapter must come with its app."""
    raise ConfigError(
        "a framework with the adapter `app` has a version without `app`",
        where="config/frameworks.yaml",
        do="Describe the app there, see docs/android-apps.md",
    )
