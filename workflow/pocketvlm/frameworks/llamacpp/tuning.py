"""What of llama.cpp can be tuned, and what it would choose by itself.

The defaults are those of `common/common.h` and `common/common.cpp` in 0.3.9, 0.3.16 and 0.3.36: as many
threads as there are physical cores (`cpu_get_num_math`), 2048 tokens in a batch of which 512 are computed at
a time, an f16 cache. Whether attention is fused by default differs between versions: `defaults` of their
quirks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.devices.topology import Topology
from pocketvlm.frameworks.llamacpp.command import SETTINGS

_BATCH = 2048
_FLOATS = ("f32", "f16", "bf16")

AXES: Mapping[str, str] = {
    "threads": "threads that compute",
    "batch": "tokens computed at a time (ubatch)",
    "cache": "type of the cached keys and values; a quantised one brings flash attention along",
    "flash_attention": "fused attention",
}
"""What `tune.axes` may name besides single settings, with what each means."""


def settings_of(axis: str, value: Any) -> dict[str, Any]:
    """Return the settings that a value of an axis stands for; without an axis of that name the setting."""
    if axis == "batch":
        # The batch is handed over in pieces of ubatch; a smaller one would only add a pause between.
        whole = isinstance(value, int) and not isinstance(value, bool)
        return {"batch": max(_BATCH, value) if whole else value, "ubatch": value}
    if axis == "cache":
        fused = {} if value in _FLOATS else {"flash_attention": True}
        return {"kv_type_k": value, "kv_type_v": value, **fused}
    return {axis: value}


def candidates(axis: str, topology: Topology) -> list[Any] | None:
    """Return what `auto` means for an axis on a device; None for an axis of which nothing is known.

    Threads: one, half of the cores, and as many as the fastest classes of cores have together.
    """
    if axis == "threads":
        physical = len(topology.cores)
        counts, sum_ = {1, (physical + 1) // 2, physical}, 0
        for one in topology.classes:
            sum_ += len(one)
            counts.add(sum_)
        return sorted(counts)
    known: dict[str, list[Any]] = {
        "batch": [128, 256, 512],
        "cache": ["f16", "q8_0"],
        "flash_attention": [False, True],
        "mmap": [False, True],
    }
    return known.get(axis)


def defaults(topology: Topology, quirks: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the framework chooses on a device when nobody says anything, for every setting.

    Args:
        topology: of the device. (On a processor with two kinds of cores llama.cpp counts the fast ones
        only on
            x86; there they are told apart by an instruction that nothing here runs.)
        quirks: the version's; `defaults` in it overrides what is said here.
    """
    own = {name: setting.default for name, setting in SETTINGS.items()}
    return {
        **own,
        "threads": len(topology.cores),
        "batch": _BATCH,
        "ubatch": 512,
        "kv_type_k": "f16",
        "kv_type_v": "f16",
        "flash_attention": False,
        "mmap": True,
        **quirks.get("defaults", {}),
    }
