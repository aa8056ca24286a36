"""The state that an experiment wants its devices in: saved, set, verified, and given back, also after a kill.

`items` is what can be read and written, `wants` what an experiment may ask for, `journal` what the device was
like before, on the host and on the device, `keep` a block's use of them, `left` what a killed block left.
"""

from __future__ import annotations

from pocketvlm.measure.state.keep import Held, in_state, recover

__all__ = ["Held", "in_state", "recover"]
