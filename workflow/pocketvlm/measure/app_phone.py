"""What a phone is asked and told while an app is driven on it: screen, keys, log, clocks, the app's process.

Each command tells the device's clock (CLOCK_BOOTTIME, hundredths of a second) before and after it. What an
app shows or logs is untrusted: it is limited, parsed by `apps`, and goes back as words of a command.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pocketvlm.apps import logs, screen
from pocketvlm.devices.base import Device, Result
from pocketvlm.errors import DeviceError
from pocketvlm.measure.memory import named

COMMAND_S = 30.0
_LOG_BYTES = 256 << 10
# How long an app may take to have a process, and how long a pressed key to have its effect.
_PROCESS_S = 5.0
_SETTLE_S = 0.3
_WAKEUP = "224"  # a key that switches nothing off
_STAMP = re.compile(r"^pocketvlm (\d{1,10})\.(\d\d) (\d{1,10})\.(\d\d)$", re.MULTILINE)
_TIMED = 'read a b </proc/uptime; "$@"; s=$?; read c d </proc/uptime; echo "pocketvlm $a $c" >&2; exit $s'
_DUMP = (
    'read a b </proc/uptime; rm -f "$1"; uiautomator dump "$1" >&2 </dev/null; read c d </proc/uptime; '
    'echo "pocketvlm $a $c" >&2; echo "process $(pidof "$2")" >&2; [ ! -f "$1" ] || head -c "$3" "$1"'
)
_CLOCKS = (
    "read a b </proc/uptime; date '+%m-%d %H:%M:%S.%N'; read c d </proc/uptime; echo \"pocketvlm $a $c\" >&2"
)
# Several Androids' words: WindowManagerService, PhoneWindowManager and KeyguardServiceDelegate (.java).
_LOCKED = re.compile(
    r"(?:mDreamingLockscreen|mShowingLockscreen|isKeyguardShowing)=true|KeyguardServiceDelegate\s+showing=true"
)
_CRASHED = re.compile(r" [EF] |FATAL")


class StepError(Exception):
    """A step cannot be done: what happened, and what to do."""

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what)
        self.what, self.do = what, do


@dataclass(frozen=True)
class Look:
    """One look: the device's clock before and after it, what it gave, or why it gave nothing.

    Attributes:
        begin_us, end_us: CLOCK_BOOTTIME.
        xml, screen: the dump, as it came and parsed; of a look into the log none.
        why: why there is nothing.
    """

    begin_us: int
    end_us: int
    xml: str = ""
    screen: screen.Screen | None = None
    why: str = ""


class AppPhone:
    """A phone with an app on it.

    Args:
        device: the phone.
        package: the app's.
        dump: a path on the device for dumps of the screen.
    """

    def __init__(self, device: Device, package: str, dump: str) -> None:
        self.device, self.package, self.dump = device, package, dump
        self.pid = 0
        self._clocks: logs.Clocks | None = None

    def timed(self, argv: Sequence[str]) -> tuple[int, int, Result]:
        """Run a command; return the device's clock before and after it, and how it ended."""
        result = self.device.shell(["sh", "-c", _TIMED, "sh", *argv], COMMAND_S)
        return (*self._stamps(result), result)

    def checked(self, argv: Sequence[str]) -> tuple[int, int]:
        """Run a command that must end with 0; return the device's clock before and after it."""
        begin, end, result = self.timed(argv)
        if result.status != 0:
            said = (result.stderr.split("pocketvlm")[0].strip() or result.stdout.strip())[-200:]
            raise StepError(f"`{' '.join(argv[:2])}` failed: {said}", "Try it by hand with `adb shell`")
        return begin, end

    def look(self) -> Look:
        """Dump the screen, and see that the app lives and that nothing of Android's is in front of it.

        Raises:
            StepError: the app has ended, a dialog of Android's is there, or the dump is no screen.
        """
        argv = ["sh", "-c", _DUMP, "sh", self.dump, self.package, str(screen.MAX_BYTES + 1)]
        result = self.device.shell(argv, COMMAND_S)
        begin, end = self._stamps(result)
        told = re.search(r"^process (.*)$", result.stderr, re.MULTILINE)
        if self.pid and told is not None and str(self.pid) not in told[1].split():
            raise self._gone()
        if not result.stdout:
            said = " ".join(result.stderr.split("pocketvlm")[0].split())[-200:]
            return Look(begin, end, why=f"uiautomator says {said!r}")
        try:
            shown = screen.parse(result.stdout.encode())
        except screen.ScreenError as error:
            raise StepError(
                f"the screen cannot be read: {error}", "Look at it with `adb shell uiautomator dump`"
            ) from None
        return Look(begin, end, result.stdout, shown)

    def log_lines(self, since_us: int) -> tuple[Look, list[logs.Line]]:
        """Return the lines of the app's log from a moment on."""
        clocks = self.clocks()
        argv = ["logcat", "-d", "-v", "threadtime", "-b", "main", f"--pid={self.pid}"]
        begin, end, result = self.timed([*argv, "-T", clocks.at(since_us)])
        if self.find_process() != self.pid:
            raise self._gone()
        lines = logs.parse(result.stdout[-_LOG_BYTES:], clocks)
        mine = [line for line in lines if line.pid == self.pid and line.t_us >= since_us]
        return Look(begin, end, why="its log has no such line"), mine

    def clocks(self) -> logs.Clocks:
        """Return both of the phone's clocks at one moment, as they were when they were first asked."""
        if self._clocks is None:
            self._clocks = self.ask_clocks()
        return self._clocks

    def ask_clocks(self) -> logs.Clocks:
        """Ask the phone for both of its clocks."""
        result = self.device.shell(["sh", "-c", _CLOCKS], COMMAND_S)
        begin, end = self._stamps(result)
        stamp = result.stdout.strip()
        try:
            logs.microseconds(stamp)
        except ValueError:
            raise DeviceError(
                f"`date` of {self.device.id} prints {stamp[:60]!r}",
                do="Use a phone whose date tells nanoseconds (toybox of Android 8 and later)",
            ) from None
        return logs.Clocks((begin + end) // 2, stamp)

    def wake(self) -> None:
        """Switch the screen on and open a lock without a secret; StepError where that does not help."""
        if not self.awake():
            self.checked(["input", "keyevent", _WAKEUP])
            time.sleep(_SETTLE_S)
            if not self.awake():
                raise StepError("the phone's screen stays off", "Switch it on by hand")
        if self.locked():
            self.device.shell(["wm", "dismiss-keyguard"], COMMAND_S)
            time.sleep(_SETTLE_S)
            if self.locked():
                raise StepError(
                    "the phone is locked", "Unlock it, and take its PIN or pattern away while it measures"
                )

    def awake(self) -> bool:
        """Whether the screen is on."""
        told = re.search(r"mWakefulness=(\w+)", self._dumpsys("power"))
        return told is None or told[1] == "Awake"

    def locked(self) -> bool:
        """Whether the lock screen is shown."""
        return _LOCKED.search(self._dumpsys("window")) is not None

    def keyboard(self) -> bool:
        """Whether the keyboard is shown."""
        return "mInputShown=true" in self._dumpsys("input_method")

    def wait_for_process(self) -> bool:
        """Wait until the app has a process, which is then the one that is meant; false when it gets none."""
        self.pid, until = 0, time.monotonic() + _PROCESS_S
        while not (pid := self.find_process()) and time.monotonic() < until:
            time.sleep(0.1)
        self.pid = pid
        return pid != 0

    def find_process(self) -> int:
        """Return the app's process: the one that is meant as long as it lives, else the first; 0 for none."""
        words = self.device.shell(["pidof", self.package], COMMAND_S).stdout.split()
        pids = [int(word) for word in words if word.isdigit()]
        return self.pid if self.pid in pids else (0 if self.pid else next(iter(pids), 0))

    def _gone(self) -> StepError:
        buffers = ["-b", "events", "-b", "main", "-b", "system", "-b", "crash"]
        said = self.device.shell(["logcat", "-d", "-t", "400", *buffers], COMMAND_S).stdout[-_LOG_BYTES:]
        if killed := named(said, self.pid):
            return StepError(
                f"the app's process {self.pid} was killed because memory ran out; the log says: {killed}",
                "Close other programs on the phone, or choose a smaller model",
            )
        told = (line for line in reversed(said.splitlines()) if f" {self.pid} " in line)
        last = next((line for line in told if _CRASHED.search(line)), "")
        return StepError(
            f"the app's process {self.pid} is gone{f': {last.strip()[:200]}' if last else ''}",
            "Look into its log (`adb logcat -b crash`); too little memory is a usual cause",
        )

    def _dumpsys(self, service: str) -> str:
        return self.device.shell(["dumpsys", service], COMMAND_S).stdout

    def _stamps(self, result: Result) -> tuple[int, int]:
        match = _STAMP.search(result.stderr)
        if match is None:
            raise DeviceError(
                f"{self.device.id} does not tell its clock: "
                f"{(result.stderr or result.stdout).strip()[-200:]}",
                do="Look whether /proc/uptime can be read there",
            )
        a, b, c, d = (int(part) for part in match.groups())
        return (a * 100 + b) * 10_000, (c * 100 + d) * 10_000


def innermost(nodes: Sequence[screen.Node]) -> list[screen.Node]:
    """Leave out views that hold another of them: a button and the text on it are one thing to a person."""

    def holds(outer: screen.Bounds, inner: screen.Bounds) -> bool:
        across = outer.left <= inner.left and outer.right >= inner.right
        return across and outer.top <= inner.top and outer.bottom >= inner.bottom

    return [
        node
        for place, node in enumerate(nodes)
        if not any(
            place != other
            and holds(node.bounds, inner.bounds)
            and (node.bounds != inner.bounds or place < other)
            for other, inner in enumerate(nodes)
        )
    ]
