"""The files and settings of the emulated phone that a user changes, read back by the sensors' writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pocketvlm.devices.emulated.controls import USUAL_BRIGHTNESS, Controls, accepted, controls, defaults

_WIDTH = 16
_READ_BYTES = 256


class Files(Protocol):
    """Files below the phone's root, as `writer.SensorFiles`."""

    def write(self, path: str, width: int, text: str) -> None:
        """Overwrite a file."""

    def read(self, path: str) -> str:
        """Return the first line of a file, whoever wrote it."""

    def forget(self, path: str) -> None:
        """Write the file at the next `write` whatever it was."""


class Switches:
    """How the phone's switches stand; a phone that starts has them as they were made.

    Args:
        root: the phone's root folder.
        files: writes and reads below it.
        clusters: operating points in kHz by the first core of each cluster.
        rooted: whether what is written to sysfs is obeyed; else it is undone.
        charger: whether a charger is connected.
    """

    def __init__(
        self, root: Path, files: Files, clusters: Mapping[int, Sequence[int]], *, rooted: bool, charger: bool
    ) -> None:
        self._root, self._files, self._clusters = root, files, clusters
        self._rooted, self._charger = rooted, charger
        self._held = defaults(clusters)
        self._doubted: set[str] = set()
        for path, text in self._held.items():
            files.write(path, _WIDTH, text)

    def look(self) -> Controls:
        """Read what was written since the last look, take what is acceptable and undo the rest."""
        for path in self._held:
            self._look_at(path)
        brightness = self._data("settings/system/screen_brightness")
        right = brightness.isascii() and brightness.isdecimal() and int(brightness) <= 255
        return controls(
            self._held,
            self._clusters,
            charger=self._charger,
            fixed_performance=self._data("power/fixed_performance") == "true",
            brightness=int(brightness) if right else USUAL_BRIGHTNESS,
        )

    def foreground(self) -> str:
        """Return the activity in front, `PACKAGE/ACTIVITY`; empty for none."""
        named = self._data("activity/foreground")
        return named if "/" in named and len(named.split()) == 1 else ""

    def _look_at(self, path: str) -> None:
        text = self._files.read(path)
        if text == self._held[path]:
            self._doubted.discard(path)
            return
        policy = path.partition("/policy")[2].partition("/")[0]
        clocks = self._clusters[int(policy)] if policy else ()
        taken = accepted(self._held, path, text, clocks) if self._rooted else None
        # A shell empties a file before it writes to it: what is refused gets a second look.
        if taken is None and path not in self._doubted:
            self._doubted.add(path)
            return
        self._doubted.discard(path)
        self._held[path] = self._held[path] if taken is None else taken
        if self._held[path] != text:
            self._files.forget(path)
            self._files.write(path, _WIDTH, self._held[path])

    def _data(self, name: str) -> str:
        try:
            with (self._root / "data" / name).open(encoding="utf-8", errors="replace") as stream:
                return stream.read(_READ_BYTES).strip()
        except OSError:
            return ""
