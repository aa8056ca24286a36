"""Faults of the phone's sensors: what a kernel, a driver or a gauge may answer instead of a number."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.chaos import checks
from tests.chaos.fault import fault
from tests.chaos.scene import Scene

_ZONE = "sys/class/thermal/thermal_zone0/temp"
_CURRENT = "sys/class/power_supply/battery/current_now"
_VOLTAGE = "sys/class/power_supply/battery/voltage_now"
_POINTS = ("from the start", "during the run")


def _strike(scene: Scene, point: str, *answers: tuple[str, Callable[[Path], None]]) -> None:
    """Change what files of the phone answer, and keep the sensors' model from writing them again."""
    scene.reach("phone is up" if point == "from the start" else "run")
    scene.phone.signal("writer", signal.SIGSTOP)
    for path, answer in answers:
        answer(scene.phone.root / path)
    scene.hit()


def _says(text: str | Callable[[float], str]) -> Callable[[Path], None]:
    """Let a file answer this, in place: the probe holds it open."""

    def write(file: Path) -> None:
        said = text if isinstance(text, str) else text(float(file.read_text().split()[0]))
        with file.open("r+b") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.write(f"{said}\n".encode().ljust(size, b"\n"))

    return write


def _withheld(scene: Scene, *metrics: str, because: str) -> None:
    """Expect that metrics of the whole run have no number in the table, and why."""
    scene.expect(lambda: checks.withheld(scene, metrics, because))


_TEMPERATURE = ("temperature_start.cpu", "temperature_max.cpu", "temperature_rise.cpu")
_POWER = ("power", "energy", "power_net", "energy_net")


@fault("sensor vanishes", *_POINTS, says=None, sensors=True)
def _vanishes(scene: Scene, point: str) -> None:
    def unlink(file: Path) -> None:
        file.unlink()

    # A descriptor outlives the file's name; what a driver takes away reads as nothing then.
    gone = unlink if point == "from the start" else lambda file: os.truncate(file, 0)
    _strike(scene, point, (_ZONE, gone), (_CURRENT, gone))
    _withheld(scene, *_POWER, because=r"could not be read|readings were taken|samples")


@fault("sensor hangs", "from the start", says=None, sensors=True)
def _hangs(scene: Scene, point: str) -> None:
    def pipe(file: Path) -> None:
        file.unlink()
        os.mkfifo(file)
        scene.at_end(file.unlink)

    _strike(scene, point, (_CURRENT, pipe))
    _withheld(scene, *_POWER, because=r"could not be read|readings were taken|samples")


@fault("sensor answers EIO", "from the start", says=None, sensors=True)
def _eio(scene: Scene, point: str) -> None:
    def unreadable(file: Path) -> None:
        file.unlink()
        # Nothing is mapped at its beginning: reading it is an input/output error.
        file.symlink_to("/proc/self/mem")
        scene.at_end(file.unlink)

    _strike(scene, point, (_CURRENT, unreadable), (_ZONE, unreadable))
    _withheld(scene, *_POWER, because=r"could not be read|readings were taken|samples")


@fault("sensor answers N %", *reversed(_POINTS), says=None, sensors=True)
def _percent(scene: Scene, point: str) -> None:
    _strike(scene, point, (_ZONE, _says("45 %")), (_CURRENT, _says("busy")))
    _withheld(scene, *_POWER, because=r"could not be read|readings were taken|samples")
    if point == "during the run":
        _withheld(scene, *_TEMPERATURE, because=r"cannot be true: it went from")


@fault("sensor answers absurd values", *_POINTS, says=None, sensors=True)
def _absurd(scene: Scene, point: str) -> None:
    _strike(scene, point, (_ZONE, _says("-2147483648")), (_CURRENT, _says("99999999999")))
    _withheld(scene, *_POWER, because=r"cannot be true: it read -100000 A")
    if point == "during the run":
        _withheld(scene, *_TEMPERATURE, because=r"cannot be true: it read -2.14748e\+06 degC")


@fault("sensor changes its unit", "during the run", says=None, sensors=True)
def _unit(scene: Scene, point: str) -> None:
    def smaller(value: float) -> str:
        return str(round(value / 1000))

    _strike(scene, point, (_ZONE, _says(smaller)), (_CURRENT, _says(smaller)), (_VOLTAGE, _says(smaller)))
    _withheld(scene, *_POWER, because=r"cannot be true: it (went from|read 0\.003)")
    _withheld(scene, *_TEMPERATURE, because=r"cannot be true: it went from")
