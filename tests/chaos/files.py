"""Faults of what was pushed: a file on the phone is truncated, corrupted or replaced behind one's back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.chaos.fault import fault
from tests.chaos.scene import Scene

_POINTS = ("between runs", "before the block")
# What is found before a run is pushed anew; what is found after it makes the run count for nothing.
_SAYS = {"between runs": r"model-Q4_0\.gguf changed on chaos-phone", "before the block": None}


def _spoil(scene: Scene, point: str, how: Callable[[Path], None]) -> None:
    scene.already_pushed()

    def spoil() -> None:
        (model,) = scene.phone.objects.glob("*/model-Q4_0.gguf")
        before = model.stat()
        how(model)
        os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
        scene.hit()

    if point == "before the block":
        spoil()
        scene.start()
    else:
        with scene.held(point):
            spoil()


@fault("pushed file corrupted", *_POINTS, says=_SAYS)
def _corrupted(scene: Scene, point: str) -> None:
    def flip(model: Path) -> None:
        with model.open("r+b") as stream:
            stream.seek(-4096, os.SEEK_END)
            byte = stream.read(1)
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte[0] ^ 1]))

    _spoil(scene, point, flip)


@fault("pushed file truncated", *_POINTS, says={**_SAYS, "between runs": r"changed on|ended with status"})
def _truncated(scene: Scene, point: str) -> None:
    _spoil(scene, point, lambda model: os.truncate(model, model.stat().st_size // 2))


@fault("pushed file replaced", *_POINTS, says=_SAYS)
def _replaced(scene: Scene, point: str) -> None:
    def replace(model: Path) -> None:
        other = model.with_name("other")
        content = bytearray(model.read_bytes())
        content[-4096] ^= 1
        other.write_bytes(content)
        other.chmod(model.stat().st_mode)
        other.replace(model)

    _spoil(scene, point, replace)
