"""What was found on a device, and the sensor records that are made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ROOT = "{sysfs_root}"


@dataclass(frozen=True)
class Found:
    """What was found on a device.

    Attributes:
        files: first line by path below the device's own root (`/sys/…`, `/proc/…`); None where the file is
            there and cannot be read.
        page_bytes: size of a memory page.
        ticks: clock ticks a second of /proc/stat.
        current_scale: ampere for one unit of current_now, positive while discharging; None where it is not
            known.
        uncalibrated: why it is not known.
        gpu_work: whether Android tells the GPU's time by user.
    """

    files: Mapping[str, str | None]
    page_bytes: int
    ticks: int
    current_scale: float | None
    uncalibrated: str = ""
    gpu_work: bool = False

    def below(self, pattern: str) -> Iterator[tuple[re.Match[str], str | None]]:
        """Yield the files whose whole path matches, in the order of their numbers."""
        hits = [(match, line) for path, line in self.files.items() if (match := re.fullmatch(pattern, path))]
        yield from sorted(hits, key=lambda hit: [natural(part) for part in hit[0].groups()])


@dataclass
class Sensors:
    """The sensor records and what is missing, both as identity.json has them."""

    used: list[dict[str, Any]]
    missing: list[dict[str, str]]

    def add(
        self,
        name: str,
        group: str,
        path: str,
        select: str,
        quantity: str,
        component: str,
        unit: str,
        scale: float | None,
        kind: str = "gauge",
        wraps_at: int | None = None,
    ) -> None:
        """Take a sensor into use; of two that would have one name, the second gets a number.

        `wraps_at` is the raw value at which a counter begins again at 0, None where it is not known.
        """
        clean = re.sub(r"[^a-z0-9_.-]", "_", name.lower())[:80]
        taken = {sensor["name"] for sensor in self.used}
        number, unique = 2, clean
        while unique in taken:
            unique, number = f"{clean}.{number}", number + 1
        self.used.append(
            {
                "name": unique,
                "group": group,
                # Only what lies in sysfs is elsewhere on an emulated phone.
                "path": (ROOT + path) if path.startswith("/sys/") else path,
                "select": select,
                "quantity": quantity,
                "component": component,
                "unit": unit,
                "scale": scale,
                "kind": kind,
                **({} if wraps_at is None else {"range": wraps_at}),
            }
        )

    def lack(self, quantity: str, component: str, reason: str) -> None:
        """Note what this device does not show, and why."""
        self.missing.append({"quantity": quantity, "component": component, "reason": reason})


def natural(text: str | None) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts names with numbers by their numbers: policy4 before policy10."""
    parts = re.split(r"(\d+)", text or "")
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
