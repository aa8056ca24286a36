"""The report of an experiment: one self-contained page."""

from pocketvlm.analyse.report.extras import Extras
from pocketvlm.analyse.report.origin import Origin, read_origin
from pocketvlm.analyse.report.page import render

__all__ = ["Extras", "Origin", "read_origin", "render"]
