"""How much memory an MLC-Imp program takes: as MLC-LLM's."""

from __future__ import annotations

from pocketvlm.frameworks.mlc.memory import footprint

__all__ = ["footprint"]
