"""Where a run of llama.cpp computed, from its log: layers, vision tower, device.

Lines (src/llama-model.cpp, src/llama.cpp, tools/mtmd/clip.cpp and the backends of 0.3.9, 0.3.16 and 0.3.36):

    load_tensors: offloaded 5/5 layers to GPU
    llama_model_load_from_file_impl: using device Vulkan0 (llvmpipe (LLVM 15.0.6, 256 bits)) - 11 MiB free
    clip_ctx: CLIP using Vulkan0 backend

Without a device none of the first two is printed, and the third says CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pocketvlm.frameworks.contract import Offload

CPU = "CPU"

_LAYERS = re.compile(rb"load_tensors: offloaded (\d{1,6})/(\d{1,6}) layers to GPU")
_VISION = re.compile(rb"[\w:]{1,64}: CLIP using (\S{1,64}) backend")
_DEVICE = re.compile(rb"[\w:]{1,64}: using device (\S{1,64} \(.{0,200}\)) - \d{1,12} MiB free")
_FAILURE = re.compile(
    rb".{0,80}(?:No devices found|no usable GPU found|Failed to initialize \"[^\"]{0,64}\" backend)"
)
_CHARS = 200


def offload(lines: Iterable[bytes]) -> Offload:
    """Return where a run computed.

    Args:
        lines: of its stderr, without time, level and colour.
    """
    layers = of = None
    vision: str | None = None
    device = failure = ""
    for line in lines:
        if match := _LAYERS.match(line):
            layers, of = int(match[1]), int(match[2])
        elif match := _VISION.match(line):
            vision = _text(match[1])
        elif match := _DEVICE.match(line):
            device = device or _text(match[1])
        elif match := _FAILURE.match(line):
            failure = failure or _text(line)
    return Offload(layers, of, vision, CPU, device, failure)


def _text(data: bytes) -> str:
    text = data.decode("utf-8", errors="replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()[:_CHARS]
