"""Faults of storage: no space on the phone, none on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from pocketvlm.devices.folder import MARK
from tests.chaos.bridge import PADDING
from tests.chaos.fault import fault
from tests.chaos.host import reach
from tests.chaos.scene import Scene


def _not_root() -> str:
    return "" if os.geteuid() == 0 else "only root may mount a small file system"


def small(scene: Scene, folder: Path, size: int) -> None:
    """Put a file system of so many bytes below a folder, with what is in the folder."""
    kept = folder.with_name(f".{folder.name}.kept")
    folder.mkdir(parents=True, exist_ok=True)
    folder.rename(kept)
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True, capture_output=True)
    subprocess.run(["cp", "-a", f"{kept}/.", str(folder)], check=True)
    shutil.rmtree(kept)

    def leave() -> None:
        subprocess.run(["cp", "-a", f"{folder}/.", str(kept)], check=True)
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)
        folder.rmdir()
        kept.rename(folder)

    scene.at_end(leave)


def fill(scene: Scene, folder: Path) -> None:
    """Let other files take all space that a folder's file system has left, until `mend`."""
    filler = folder / "filler"
    with filler.open("wb") as stream, contextlib.suppress(OSError):
        while True:
            os.write(stream.fileno(), bytes(1 << 16))
    with filler.open("ab", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x")
    scene.later(filler.unlink)


@fault(
    "storage full on the phone",
    "run",
    "push",
    "before the push",
    says={
        "run": r"No space left|ended with status 3|cannot write",
        "push": r"refused the push|No space left",
        "before the push": r"has \d+ MB free and \d+ MB are needed",
    },
    needs=_not_root,
)
def _phone_full(scene: Scene, point: str) -> None:
    if point == "push":
        scene.pad_program(PADDING)
    scene.phone.folder.mkdir(parents=True)
    small(scene, scene.phone.folder, (PADDING if point == "push" else 0) + (112 << 20))
    if point == "before the push":
        # A folder that was used before: what was never ours would be refused for that.
        (scene.phone.folder / MARK).touch()
        fill(scene, scene.phone.folder)
        scene.start()
        scene.hit()
        return
    with scene.held(point):
        scene.hit()
        fill(scene, scene.phone.folder)


@fault(
    "disk full on this machine",
    "run",
    "parse begins",
    "aggregate begins",
    says=r"disk .*full|No space left",
    needs=_not_root,
)
def _host_full(scene: Scene, point: str) -> None:
    small(scene, scene.path / "results", 48 << 20)
    reach(scene, point)
    scene.hit()
    fill(scene, scene.path / "results")
