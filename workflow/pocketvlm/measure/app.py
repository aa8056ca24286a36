"""Driving an app through its screen: the runner of frameworks that are no command.

The probe records a shell that only waits; meanwhile the script's steps are done from here over the device's shell.
Each command tells the device's clock before and after it. What an app shows is untrusted: it is parsed by
`apps.screen`, and whatever is typed or named goes to the device as words of a command.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketvlm.apps import keys, logs, screen
from pocketvlm.apps.record import Recorder
from pocketvlm.apps.script import KEYS, Script, Step
from pocketvlm.devices.base import Device, Process, Result, run
from pocketvlm.errors import DeviceError, WorkloadError

log = logging.getLogger(__name__)

# What the probe runs: it says that it is there and waits to be ended, which is no failure of it.
HOLDER = ("sh", "-c", 'trap "exit 0" TERM; : >"$1"; sleep 86400 & wait', "sh", "@ready")
_COMMAND_S = 30.0
_READY_S = 20.0
_KEYBOARD_S = 1.0
_LOG_BYTES = 256 << 10
_STAMP = re.compile(r"^pocketvlm (\d{1,10})\.(\d\d) (\d{1,10})\.(\d\d)$", re.MULTILINE)
_TIMED = 'read a b </proc/uptime; "$@"; s=$?; read c d </proc/uptime; echo "pocketvlm $a $c" >&2; exit $s'
_DUMP = (
    'read a b </proc/uptime; rm -f "$1"; uiautomator dump "$1" >&2 </dev/null; read c d </proc/uptime; '
    'echo "pocketvlm $a $c" >&2; echo "process $(pidof "$2")" >&2; [ ! -f "$1" ] || head -c "$3" "$1"'
)
_CLOCKS = (
    "read a b </proc/uptime; date '+%m-%d %H:%M:%S.%N'; read c d </proc/uptime; echo \"pocketvlm $a $c\" >&2"
)
_LOCKED = re.compile(r"(?:mDreamingLockscreen|mShowingLockscreen|isKeyguardShowing)=true")


@dataclass(frozen=True)
class App:
    """What is driven.

    Attributes:
        package, activity: of the app.
        permissions: given to it before it is started.
        image: where the image is to be on the device; `{root}` and the like stand for the device's own places.
        script: what is done.
        apk_sha256, version_name: what must be installed, None for any.
    """

    package: str
    activity: str
    permissions: tuple[str, ...]
    image: str
    script: Script
    apk_sha256: str | None = None
    version_name: str | None = None

    @property
    def component(self) -> str:
        """Package and activity as `am` takes them."""
        return f"{self.package}/{self.activity}"


class _StepError(Exception):
    """A step cannot be done: what happened, and what to do."""

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what)
        self.what, self.do = what, do


@dataclass(frozen=True)
class _Look:
    """One look: the device's clock before and after it, and the screen, or why there is none."""

    begin_us: int
    end_us: int
    screen: screen.Screen | None
    why: str


class Drive:
    """One run of an app.

    Args:
        device: where it is installed.
        app: what is driven.
        image: the pushed image's path on the device.
        folder: a path on the device for files of this run, to which endings are added.
        what: the cell, for messages.
        deadline_s: how long the recording may last.
    """

    def __init__(
        self, device: Device, app: App, image: str, folder: str, what: str, deadline_s: float
    ) -> None:
        self._device, self._app, self._image, self._what = device, app, image, what
        self._dump, self.ready, self.sensor_list = (
            f"{folder}.{end}" for end in ("xml", "ready", "sensors.tsv")
        )
        self._deadline_s = deadline_s
        self._ends = float("inf")
        self.recorder = Recorder()
        self.pid = 0
        self._clocks: logs.Clocks | None = None
        self._log_from = ("", 0)
        self._used: set[str] = set()
        self._begun = (0, 0)
        self._target = app.image
        for name, place in device.places.items():
            self._target = self._target.replace("{" + name + "}", place)
        self._process: Process | None = None

    def prepare(self) -> None:
        """Wake the phone, give permissions, and do the steps that come before the recording.

        Raises:
            WorkloadError: a step cannot be done; the message names it.
            DeviceError, TransientDeviceError: the device refuses or does not answer.
        """
        self._guard("prepare", self._wake)
        for permission in self._app.permissions:
            run(self._device, ["pm", "grant", self._app.package, permission], _COMMAND_S)
        for step in self._app.script.prepare:
            self._do(step)

    def record(self, process: Process) -> None:
        """Do the recorded steps while the probe runs, and then end what it runs. Errors as `prepare`."""
        self._process = process
        self._ends = time.monotonic() + self._deadline_s
        self._guard("run", self._wait_ready)
        self._tell_clocks()
        for step in self._app.script.run:
            self._do(step)
        self._tell_clocks()
        process.terminate()

    def finish(self) -> None:
        """Stop the app and take back what the run put on the device; what cannot be is told in the log."""
        for argv in (
            ["am", "force-stop", self._app.package],
            ["rm", "-f", self._target, self._dump, self.ready, self.sensor_list],
        ):
            try:
                run(self._device, argv, _COMMAND_S)
            except DeviceError as error:
                log.warning("%s", error)

    def sensors(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Return an identity whose sensors of the workload are those of the app's process."""
        own = [
            {**sensor, "path": sensor["path"].replace("{pid}", str(self.pid))}
            for sensor in identity["sensors"]
        ]
        return {**identity, "sensors": own}

    # Steps

    def _do(self, step: Step) -> None:
        log.debug("%s: %s", step.where, step)
        doing: Mapping[str, Callable[[Step], None]] = {
            "start": self._start,
            "push_image": self._push_image,
            "tap": self._tap,
            "type": self._type,
            "key": lambda step: self._input(step, "keyevent", str(KEYS[step.text])),
            "scroll": self._scroll,
            "wait": self._wait,
            "read": self._read,
        }
        self._guard(_place(step), lambda: doing[step.kind](step), str(step))

    def _guard(self, place: str, action: Callable[[], None], told: str = "") -> None:
        try:
            action()
        except _StepError as error:
            self.recorder.add("failed", self._begun[1], step=place, what=error.what)
            step = f" at the step {told}" if told else ""
            raise WorkloadError(
                f"{error.what}{step}", where=f"{self._what}, script.{place}", do=error.do
            ) from None

    def _start(self, step: Step) -> None:
        run(self._device, ["am", "force-stop", self._app.package], _COMMAND_S)
        begin, end, result = self._timed(["am", "start", "-W", "-n", self._app.component])
        # `am` ends with 0 whatever becomes of it.
        said = f"{result.stdout} {result.stderr}"
        if result.status != 0 or "Error" in said:
            raise _StepError(
                f"{self._app.component} could not be started: {said.strip()[-300:]}",
                "Look whether package and activity of the app's entry are those of the installed app",
            )
        self.pid = 0
        self.pid = self._pid()
        if not self.pid:
            raise _StepError(
                f"{self._app.package} ended right after its start",
                "Look into its log (`adb logcat -b crash`)",
            )
        self._note(step, begin, end)

    def _push_image(self, step: Step) -> None:
        folder = self._target.rpartition("/")[0]
        script = 'mkdir -p "$1" && cp "$2" "$3"'
        begin, _, result = self._timed(["sh", "-c", script, "sh", folder, self._image, self._target])
        if result.status != 0:
            raise _StepError(
                f"the image cannot be put to {self._target}: {result.stderr.strip()[-200:]}",
                "Give a folder of the shared storage as `image_folder` of the app's entry",
            )
        # Apps find pictures through the media store: it has to look, and to know the file.
        scan = ["call", "--uri", "content://media", "--method", "scan_volume", "--arg", "external_primary"]
        where = "_data='" + self._target.replace("'", "''") + "'"
        images = "content://media/external/images/media"
        query = ["query", "--uri", images, "--projection", "_data", "--where", where]
        until = time.monotonic() + step.timeout_s
        while True:
            self._timed(["content", *scan])
            _, end, result = self._timed(["content", *query])
            if "_data=" in result.stdout:
                break
            if time.monotonic() >= until:
                raise _StepError(
                    f"the phone's media store does not find {self._target}: {result.stdout.strip()[-200:]}",
                    "Give `image_folder` a folder that is scanned, such as /sdcard/Pictures/pocketvlm",
                )
            time.sleep(0.5)
        self._note(step, begin, end)

    def _tap(self, step: Step) -> None:
        self._hide_keyboard(step)
        begin, (node,) = self._sought(step)
        x, y = node.bounds.centre
        self._input(step, "tap", str(x), str(y), begin=begin, x=x, y=y)

    def _type(self, step: Step) -> None:
        begin = None
        if step.selector is not None:
            begin, (node,) = self._sought(step)
            self._checked(["input", "tap", *map(str, node.bounds.centre)])
        pieces = keys.pieces(step.text, where=step.where)
        for piece in pieces[:-1]:
            self._checked(["input", "text", piece])
        self._input(step, "text", pieces[-1], begin=begin)
        # It may still be coming up.
        until = time.monotonic() + _KEYBOARD_S
        while not self._keyboard() and time.monotonic() < until:
            time.sleep(0.1)
        self._hide_keyboard(step)

    def _hide_keyboard(self, step: Step) -> None:
        """Close the keyboard, below which a view would be tapped in vain."""
        until = time.monotonic() + step.timeout_s
        while self._keyboard():
            if time.monotonic() >= until:
                raise _StepError(
                    "the keyboard stays in the way",
                    "Choose another keyboard on the phone, or one of hardware, and look what `back` does in the app",
                )
            _, end, _ = self._checked(["input", "keyevent", str(KEYS["back"])])
            self._begun = (self._begun[0], end)
            time.sleep(0.2)

    def _keyboard(self) -> bool:
        return "mInputShown=true" in self._device.shell(["dumpsys", "input_method"], _COMMAND_S).stdout

    def _scroll(self, step: Step) -> None:
        until = time.monotonic() + step.timeout_s
        begin = None
        while True:
            look = self._look(step)
            begin = look.begin_us if begin is None else begin
            if look.screen and step.selector and step.selector.find(look.screen, self._app.package):
                self._note(step, begin, look.end_us)
                return
            self._check_time(step, until, look)
            area = look.screen.nodes[0].bounds if look.screen and look.screen.nodes else None
            if area is not None:
                x, height = str(area.centre[0]), area.bottom - area.top
                far, near = str(area.top + height * 7 // 10), str(area.top + height * 3 // 10)
                from_y, to_y = (far, near) if step.direction == "up" else (near, far)
                self._checked(["input", "swipe", x, from_y, x, to_y, "300"])

    def _wait(self, step: Step) -> None:
        until = time.monotonic() + step.timeout_s
        since_begun, since = self._begun
        not_before = since_begun
        begin = None
        while True:
            if step.log is not None:
                begun, end, line = self._log_line(step, step.log)
                look = _Look(begun, end, None, "its log has no such line")
                seen = None if line is None else max(line.t_us, since)
                # The log tells when: nothing depends on when it was read.
                not_before = since if seen is None else seen
            else:
                look = self._look(step)
                seen = look.end_us if look.screen is not None and self._there(step, look.screen) else None
            begin = look.begin_us if begin is None else begin
            if seen is not None:
                break
            not_before = look.begin_us
            self._check_time(step, until, look)
            time.sleep(step.every_s)
        times = {
            "since_us": since,
            "since_begun_us": since_begun,
            "not_before_us": not_before,
            "seen_us": seen,
        }
        self._note(step, begin, look.end_us, phases=list(step.phases), **times)
        # What is waited for next, the app did from this moment on.
        self._begun = (seen, seen) if step.log is not None else (not_before, seen)

    def _there(self, step: Step, shown: screen.Screen) -> bool:
        assert step.selector is not None
        return bool(step.selector.find(shown, self._app.package)) != step.gone

    def _read(self, step: Step) -> None:
        if step.log is not None:
            until = time.monotonic() + step.timeout_s
            while True:
                begin, end, line = self._log_line(step, step.log)
                if line is not None:
                    break
                self._check_time(step, until, _Look(begin, end, None, "its log has no such line"))
                time.sleep(step.every_s)
            text = line.text
        else:
            begin, nodes = self._sought(step, tapped=False)
            end, text = self._begun[1], "\n".join(node.text or node.description for node in nodes)
        self.recorder.add("read", begin, step=_place(step), name=step.name, text=text)
        self._note(step, begin, max(begin, end))

    # Looking

    def _sought(self, step: Step, *, tapped: bool = True) -> tuple[int, list[screen.Node]]:
        """Look until the view of a step is there; return the first look's time and the view, to read all of it."""
        until = time.monotonic() + step.timeout_s
        begin = None
        while True:
            look = self._look(step)
            begin = look.begin_us if begin is None else begin
            if look.screen is not None and step.selector is not None:
                found = step.selector.find(look.screen, self._app.package)
                usable = _innermost([node for node in found if node.enabled or not tapped])
                if len(usable) > 1 and tapped:
                    raise _StepError(
                        f"{len(usable)} views are {step.selector}", "Say which: add id, text or description"
                    )
                if usable:
                    self._begun = (look.begin_us, look.end_us)
                    return begin, usable
                if found:
                    look = _Look(look.begin_us, look.end_us, look.screen, "the view is there and disabled")
            self._check_time(step, until, look)
            time.sleep(step.every_s)

    def _look(self, step: Step) -> _Look:
        """Dump the screen, and see that the app lives and nothing of Android's is in front of it."""
        argv = ["sh", "-c", _DUMP, "sh", self._dump, self._app.package, str(screen.MAX_BYTES + 1)]
        result = self._device.shell(argv, _COMMAND_S)
        begin, end = _stamps(result, self._device.id)
        xml = result.stdout
        if "process" in result.stderr:
            self._check_process(result.stderr)
        if not xml:
            said = " ".join(result.stderr.split("pocketvlm")[0].split())[-200:]
            return _Look(begin, end, None, f"uiautomator says {said!r}")
        if step.where:
            self.recorder.screen(begin, end, _place(step), xml)
        try:
            shown = screen.parse(xml.encode())
        except screen.ScreenError as error:
            raise _StepError(
                f"the screen cannot be read: {error}", "Look at it with `adb shell uiautomator dump`"
            ) from None
        if problem := screen.in_the_way(shown, self._app.package):
            raise _StepError(*problem)
        return _Look(begin, end, shown, "")

    def _log_line(self, step: Step, pattern: str) -> tuple[int, int, logs.Line | None]:
        """Read the new lines of the app's log; return the first that matches, which is then used up."""
        if self._clocks is None:
            self._tell_clocks()
        assert self._clocks is not None
        stamp, after_us = self._log_from
        argv = ["logcat", "-d", "-v", "threadtime", "-b", "main", f"--pid={self.pid}"]
        # A fraction of three digits is what every logcat takes.
        begin, end, result = self._timed([*argv, "-T", _to_millis(stamp or self._clocks.stamp)])
        lines = logs.parse(result.stdout[-_LOG_BYTES:], self._clocks)
        new = [
            line
            for line in lines
            if line.pid == self.pid
            and (line.t_us > after_us or (line.t_us == after_us and line.text not in self._used))
        ]
        found = next((line for line in new if re.search(pattern, line.text)), None)
        used = new if found is None else new[: new.index(found) + 1]
        if found is not None:
            # Several lines may have one stamp.
            at_once = {line.text for line in used if line.t_us == found.t_us}
            self._used = at_once | (self._used if found.t_us == after_us else set())
            self._log_from = (found.stamp, found.t_us)
            told = [[line.t_us, line.text] for line in used]
            self.recorder.add("log", begin, step=_place(step), lines=told)
        if not self._pid_now():
            self._gone()
        return begin, end, found

    def _check_time(self, step: Step, until: float, look: _Look) -> None:
        """Raise when a step, or the run, has taken as long as it may; or when the probe has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise _StepError(
                "the recording ended before the script", "Read the message of the probe, and start again"
            )
        if time.monotonic() >= self._ends:
            raise _StepError(
                f"the run did not end before its deadline of {self._deadline_s:g} s",
                "Give the experiment a longer deadline_s, or look at what the app shows",
            )
        if time.monotonic() < until:
            return
        if not self._awake():
            raise _StepError(
                "the screen is off", "Set `state: {stay_on: true}` in the experiment, or a longer timeout"
            )
        shown = " / ".join(list(screen.texts(look.screen))[:12])[:400] if look.screen else ""
        seen = f"; the screen shows: {shown}" if shown else ""
        raise _StepError(
            f"nothing came of it within {step.timeout_s:g} s{f' ({look.why})' if look.why else ''}{seen}",
            "Compare the step with the last screen, or give it a longer timeout_s",
        )

    def _check_process(self, told: str) -> None:
        now = {int(word) for line in told.splitlines() if line.startswith("process")
               for word in line.split()[1:] if word.isdigit()}  # fmt: skip
        if self.pid and self.pid not in now:
            self._gone()

    def _gone(self) -> None:
        asked = ["logcat", "-d", "-t", "40", "-b", "main", "-b", "crash", f"--pid={self.pid}"]
        said = self._device.shell(asked, _COMMAND_S).stdout.strip().splitlines()
        last = next((line for line in reversed(said) if " E " in line or "FATAL" in line), "")
        raise _StepError(
            f"the app's process {self.pid} is gone{f': {last.strip()[:200]}' if last else ''}",
            "Look into its log (`adb logcat -b crash`); too little memory is a usual cause",
        )

    # The device

    def _wake(self) -> None:
        if not self._awake():
            self._checked(["input", "keyevent", "224"])  # KEYCODE_WAKEUP, which switches nothing off
            time.sleep(0.3)
            if not self._awake():
                raise _StepError("the phone's screen stays off", "Switch it on by hand")
        if self._locked():
            self._device.shell(["wm", "dismiss-keyguard"], _COMMAND_S)
            time.sleep(0.3)
            if self._locked():
                raise _StepError(
                    "the phone is locked", "Unlock it, and take its PIN or pattern away while it measures"
                )

    def _awake(self) -> bool:
        printed = self._device.shell(["dumpsys", "power"], _COMMAND_S).stdout
        told = re.search(r"mWakefulness=(\w+)", printed)
        return told is None or told[1] == "Awake"

    def _locked(self) -> bool:
        return _LOCKED.search(self._device.shell(["dumpsys", "window"], _COMMAND_S).stdout) is not None

    def _pid(self) -> int:
        until = time.monotonic() + 5
        while not (pid := self._pid_now()) and time.monotonic() < until:
            time.sleep(0.1)
        return pid

    def _pid_now(self) -> int:
        words = self._device.shell(["pidof", self._app.package], _COMMAND_S).stdout.split()
        pids = [int(word) for word in words if word.isdigit()]
        return self.pid if self.pid in pids else next(iter(pids), 0) if not self.pid else 0

    def _wait_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + _READY_S
        while self._device.shell(["ls", self.ready], _COMMAND_S).status != 0:
            if self._process.poll() is not None or time.monotonic() >= until:
                raise _StepError(
                    "the recording does not begin", "Read the message of the probe, and start again"
                )
            time.sleep(0.1)
        _, end, _ = self._timed(["true"])
        self._begun = (end, end)

    def _tell_clocks(self) -> None:
        result = self._device.shell(["sh", "-c", _CLOCKS], _COMMAND_S)
        begin, end = _stamps(result, self._device.id)
        stamp = result.stdout.strip()
        try:
            logs.microseconds(stamp)
        except ValueError:
            raise DeviceError(
                f"`date` of {self._device.id} prints {stamp[:60]!r}",
                do="Use a phone whose date tells nanoseconds (toybox of Android 8 and later)",
            ) from None
        clocks = logs.Clocks((begin + end) // 2, stamp)
        self._clocks = self._clocks or clocks
        self.recorder.add("clock", clocks.t_us, stamp=stamp)

    def _input(self, step: Step, *words: str, begin: int | None = None, **more: Any) -> None:
        begun, end, _ = self._checked(["input", *words])
        self._note(step, begun if begin is None else begin, end, **more)
        self._begun = (begun, end)

    def _checked(self, argv: Sequence[str]) -> tuple[int, int, Result]:
        begin, end, result = self._timed(argv)
        if result.status != 0:
            said = (result.stderr.split("pocketvlm")[0].strip() or result.stdout.strip())[-200:]
            raise _StepError(f"`{' '.join(argv[:2])}` failed: {said}", "Try it by hand with `adb shell`")
        return begin, end, result

    def _timed(self, argv: Sequence[str]) -> tuple[int, int, Result]:
        result = self._device.shell(["sh", "-c", _TIMED, "sh", *argv], _COMMAND_S)
        return (*_stamps(result, self._device.id), result)

    def _note(self, step: Step, begin: int, end: int, **more: Any) -> None:
        self.recorder.add(
            "step", begin, end_us=end, step=_place(step), kind=step.kind, what=str(step), **more
        )
        self._begun = (begin, end)


def _place(step: Step) -> str:
    """Return a step's place in its script: `run.3`."""
    return ".".join(step.where.rsplit(".", 2)[-2:])


def _innermost(nodes: Sequence[screen.Node]) -> list[screen.Node]:
    """Leave out views that hold another of them: a button and the text on it are one thing to a person."""

    def holds(outer: screen.Bounds, inner: screen.Bounds) -> bool:
        return (
            outer.left <= inner.left and outer.top <= inner.top
            and outer.right >= inner.right and outer.bottom >= inner.bottom
        )  # fmt: skip

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


def _stamps(result: Result, device: str) -> tuple[int, int]:
    """Return the device's clock before and after a command, in microseconds."""
    match = _STAMP.search(result.stderr)
    if match is None:
        raise DeviceError(
            f"{device} does not tell its clock: {(result.stderr or result.stdout).strip()[-200:]}",
            do="Look whether /proc/uptime can be read there",
        )
    a, b, c, d = (int(part) for part in match.groups())
    return (a * 100 + b) * 10_000, (c * 100 + d) * 10_000


def _to_millis(stamp: str) -> str:
    """Return a stamp as `logcat -T` takes it."""
    head, _, fraction = stamp.partition(".")
    return f"{head}.{fraction[:3].ljust(3, '0')}"
