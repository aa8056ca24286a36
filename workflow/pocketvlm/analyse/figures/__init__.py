"""Figures of an experiment: SVG and PNG, the same bytes for the same records."""

from pocketvlm.analyse.figures.bars import draw_phases
from pocketvlm.analyse.figures.dots import draw_energy, draw_throughput
from pocketvlm.analyse.figures.timeline import draw_timeline

__all__ = ["draw_energy", "draw_phases", "draw_throughput", "draw_timeline"]
