"""The paper's tables in their own layout, with this experiment's numbers beside the published ones."""

from pocketvlm.analyse.paper.tables import render_tables

__all__ = ["render_tables"]
