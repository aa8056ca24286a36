"""Inference runtimes: the one table of adapters.

An adapter is a folder with `command.py` (how the runtime is called), `memory.py` (how much memory a run
takes) and `grammar.py` (what its output means); `contract.py` says what each takes and gives. Everything else
asks this table by the adapter's name and never looks at the name itself.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import cast

from pocketvlm.errors import ConfigError
from pocketvlm.frameworks.contract import (
    FOREIGN,
    INTERACTION,
    JUDGED,
    PHASES,
    Accounting,
    Boundary,
    Command,
    Counter,
    Grammar,
    Memory,
    Offload,
    Output,
    Report,
    Stream,
)

__all__ = [
    "ADAPTERS",
    "FOREIGN",
    "INTERACTION",
    "JUDGED",
    "PHASES",
    "Accounting",
    "Boundary",
    "Command",
    "Counter",
    "Grammar",
    "Memory",
    "Offload",
    "Output",
    "Report",
    "Stream",
    "bench",
    "command",
    "grammar",
    "memory",
]

ADAPTERS = {
    "app": "pocketvlm.frameworks.app",
    "llamacpp": "pocketvlm.frameworks.llamacpp",
    "mllm": "pocketvlm.frameworks.mllm",
    "mlc": "pocketvlm.frameworks.mlc",
    "mlcimp": "pocketvlm.frameworks.mlcimp",
    "mnn": "pocketvlm.frameworks.mnn",
}


def _part(adapter: str, part: str) -> ModuleType:
    if adapter not in ADAPTERS:
        raise ConfigError(
            f"unknown framework adapter {adapter!r}",
            where="adapter of a framework",
            do=f"use one of {', '.join(sorted(ADAPTERS))}, or add a folder of frameworks/ to ADAPTERS",
        )
    return importlib.import_module(f"{ADAPTERS[adapter]}.{part}")


def grammar(adapter: str) -> Grammar:
    """Return the grammar of an adapter; ConfigError for an unknown name."""
    return cast(Grammar, _part(adapter, "grammar"))


def command(adapter: str) -> Command:
    """Return the command module of an adapter; ConfigError for an unknown name."""
    return cast(Command, _part(adapter, "command"))


def bench(adapter: str) -> ModuleType:
    """Return the module of an adapter's own benchmark (`command`, `rates`, `unlike`, `Test`).

    Raises:
        ConfigError: an unknown name, or its framework has no benchmark that is known here.
    """
    _part(adapter, "command")
    if importlib.util.find_spec(f"{ADAPTERS[adapter]}.bench") is None:
        raise ConfigError(
            f"the framework of the adapter {adapter} has no benchmark of its own",
            where="adapter of a framework",
            do="Choose cells of llama.cpp, or add bench.py to the adapter's folder",
        )
    return _part(adapter, "bench")


def memory(adapter: str) -> Memory:
    """Return the memory module of an adapter; ConfigError for an unknown name."""
    return cast(Memory, _part(adapter, "memory"))


def tuning(adapter: str) -> ModuleType:
    """Return the tuning module of an adapter: `AXES`, `settings_of`, `candidates` and `defaults`.

    Raises:
        ConfigError: an unknown adapter, or one of which nothing is known that could be tuned.
    """
    try:
        return _part(adapter, "tuning")
    except ModuleNotFoundError:
        raise ConfigError(
            f"the adapter {adapter} does not say what could be tuned",
            where="tune of the experiment",
            do="Add its tuning.py, as docs/tuning.md describes",
        ) from None
