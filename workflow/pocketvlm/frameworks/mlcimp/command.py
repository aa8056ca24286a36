"""The command line of an MLC-Imp program: MLC-LLM's of early 2024, with the same library and the same words.

What is published runs in an Android app, or from Python on a computer; a program of one's own on its library
is called as MLC-LLM's is.
"""

from __future__ import annotations

from pocketvlm.frameworks.mlc.command import (
    OPTIONAL,
    PROGRAM,
    REQUIRED,
    ROLES,
    SETTINGS,
    WEIGHTS,
    command,
    environment,
    resolve_settings,
    unavailable,
    unfinished,
)

__all__ = [
    "OPTIONAL",
    "PROGRAM",
    "REQUIRED",
    "ROLES",
    "SETTINGS",
    "WEIGHTS",
    "command",
    "environment",
    "resolve_settings",
    "unavailable",
    "unfinished",
]
