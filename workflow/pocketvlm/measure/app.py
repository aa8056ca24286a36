"""Driving an app through its screen: the runner of frameworks that are no command.

The probe records a shell that only waits; meanwhile the script's steps are done from here, over the device's
shell (`app_phone`). What is done, shown and logged is recorded with its times (`apps.record`).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pocketvlm.apps import keys, screen
from pocketvlm.apps.driven import App
from pocketvlm.apps.record import Recorder
from pocketvlm.apps.script import KEYS, Step
from pocketvlm.devices.base import Device, Process, run, substitute
from pocketvlm.errors import DeviceError, WorkloadError
from pocketvlm.measure.app_phone import COMMAND_S, AppPhone, Look, StepError, innermost

log = logging.getLogger(__name__)

_READY_S = 20.0
# A keyboard takes a moment to come up.
_KEYBOARD_S = 1.0
# The device tells its clock in hundredths of a second: a line may seem to be that much older than it is.
_CLOCK_US = 20_000
_SHOWN_TEXTS = 12


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
        self.recorder = Recorder()
        self.ready, self.sensor_list = f"{folder}.ready", f"{folder}.sensors.tsv"
        self._mark = f"{folder}.app"
        self.phone = AppPhone(device, app.package, f"{folder}.xml")
        self._device, self._app, self._image, self._what = device, app, image, what
        self._target = substitute(app.image, device.places)
        self._deadline_s, self._ends = deadline_s, float("inf")
        self._process: Process | None = None
        # When the last step's deed began and was done, in microseconds of the device's clock.
        self._deed = (0, 0)
        self._log_since, self._used = 0, set[tuple[int, str]]()

    def prepare(self) -> None:
        """Wake the phone, give permissions, and do the steps that come before the recording.

        Raises:
            WorkloadError: a step cannot be done; the message names it.
            DeviceError, TransientDeviceError: the device refuses or does not answer.
        """
        # Who comes after a killed workflow finds out by this what to stop and remove.
        marking = 'printf "%s\\n" "$2" "$3" >"$1"'
        named = [self._mark, self._app.package, self._target]
        run(self._device, ["sh", "-c", marking, "sh", *named], COMMAND_S)
        self._guard("prepare", self.phone.wake)
        for permission in self._app.permissions:
            run(self._device, ["pm", "grant", self._app.package, permission], COMMAND_S)
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
        ours = [self._target, self.phone.dump, self.ready, self.sensor_list, self._mark]
        for argv in (["am", "force-stop", self._app.package], ["rm", "-f", *ours]):
            try:
                run(self._device, argv, COMMAND_S)
            except DeviceError as error:
                log.warning("%s", error)

    def sensors(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Return an identity whose sensors of the workload are those of the app's process."""
        places = {"pid": str(self.phone.pid)}
        own = [{**sensor, "path": substitute(sensor["path"], places)} for sensor in identity["sensors"]]
        return {**identity, "sensors": own}

    def _wait_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + _READY_S
        while self._device.shell(["ls", self.ready], COMMAND_S).status != 0:
            if self._process.poll() is not None or time.monotonic() >= until:
                raise StepError(
                    "the recording does not begin", "Read the message of the probe, and start again"
                )
            time.sleep(0.1)

    def _tell_clocks(self) -> None:
        clocks = self.phone.ask_clocks()
        self.recorder.add("clock", clocks.t_us, stamp=clocks.stamp)
        self._deed = (clocks.t_us, clocks.t_us)
        self._log_since = clocks.t_us

    # Steps: each leaves in `_deed` when what it did began and was done.

    def _do(self, step: Step) -> None:
        log.debug("%s: %s", step.where, step)
        doing: Mapping[str, Callable[[Step], int | None]] = {
            "start": self._start,
            "push_image": self._push_image,
            "tap": self._tap,
            "type": self._type,
            "key": self._key,
            "scroll": self._scroll,
            "read": self._read,
        }
        if step.kind == "wait":
            self._guard(_place(step), lambda: self._wait(step), step)
        else:
            self._guard(_place(step), lambda: self._note(step, doing[step.kind](step)), step)

    def _guard(self, place: str, action: Callable[[], None], step: Step | None = None) -> None:
        try:
            action()
        except StepError as error:
            self.recorder.add("failed", self._deed[1], step=place, what=error.what)
            told = f" at the step {step}" if step else ""
            raise WorkloadError(
                f"{error.what}{told}", where=f"{self._what}, script.{place}", do=error.do
            ) from None

    def _note(self, step: Step, begin: int | None, **more: Any) -> None:
        begin = self._deed[0] if begin is None else begin
        end = max(begin, self._deed[1])
        self.recorder.add(
            "step", begin, end_us=end, step=_place(step), kind=step.kind, what=str(step), **more
        )

    def _start(self, step: Step) -> None:
        run(self._device, ["am", "force-stop", self._app.package], COMMAND_S)
        self._log_since = self.phone.clocks().t_us
        component = f"{self._app.package}/{self._app.activity}"
        begin, end, result = self.phone.timed(["am", "start", "-W", "-n", component])
        # `am` ends with 0 whatever becomes of it.
        said = " ".join(f"{result.stdout} {result.stderr.split('pocketvlm')[0]}".split())
        if result.status != 0 or "Error" in said:
            raise StepError(
                f"{component} could not be started: {said[-300:]}",
                "Look whether package and activity of the app's entry are those of the installed app",
            )
        if not self.phone.wait_for_process():
            raise StepError(
                f"{self._app.package} ended right after its start",
                "Look into its log (`adb logcat -b crash`)",
            )
        self._deed = (begin, end)

    def _push_image(self, step: Step) -> int:
        folder = self._target.rpartition("/")[0]
        script = 'mkdir -p "$1" && cp "$2" "$3"'
        begin, _, result = self.phone.timed(["sh", "-c", script, "sh", folder, self._image, self._target])
        if result.status != 0:
            raise StepError(
                f"the image cannot be put to {self._target}: {result.stderr.strip()[-200:]}",
                "Give a folder of the shared storage as `image_folder` of the app's entry",
            )
        # Apps find pictures through the media store: it has to look, and to know the file.
        scan = ["--uri", "content://media", "--method", "scan_volume", "--arg", "external_primary"]
        where = "_data='" + self._target.replace("'", "''") + "'"
        known = ["--uri", "content://media/external/images/media", "--projection", "_data", "--where", where]
        until = time.monotonic() + step.timeout_s
        while True:
            self.phone.timed(["content", "call", *scan])
            _, end, result = self.phone.timed(["content", "query", *known])
            self._deed = (begin, end)
            if "_data=" in result.stdout:
                return begin
            if time.monotonic() >= until:
                raise StepError(
                    f"the phone's media store does not find {self._target}: {result.stdout.strip()[-200:]}",
                    "Give `image_folder` a folder that is scanned, such as /sdcard/Pictures/pocketvlm",
                )
            time.sleep(0.5)

    def _tap(self, step: Step) -> int:
        self._hide_keyboard(step)
        begin, (node,) = self._sought(step)
        self._deed = self.phone.checked(["input", "tap", *map(str, node.bounds.centre)])
        return begin

    def _type(self, step: Step) -> int | None:
        begin = None
        if step.selector is not None:
            begin, (node,) = self._sought(step)
            self.phone.checked(["input", "tap", *map(str, node.bounds.centre)])
        for piece in keys.pieces(step.text, where=step.where):
            self._deed = self.phone.checked(["input", "text", piece])
            begin = self._deed[0] if begin is None else begin
        until = time.monotonic() + _KEYBOARD_S
        while not self.phone.keyboard() and time.monotonic() < until:
            time.sleep(0.1)
        self._hide_keyboard(step)
        return begin

    def _hide_keyboard(self, step: Step) -> None:
        """Close the keyboard, below which a view would be tapped in vain."""
        until = time.monotonic() + step.timeout_s
        while self.phone.keyboard():
            if time.monotonic() >= until:
                raise StepError(
                    "the keyboard stays in the way",
                    "Choose another keyboard on the phone, and look what `back` does in the app",
                )
            self._deed = self.phone.checked(["input", "keyevent", str(KEYS["back"])])
            time.sleep(0.2)

    def _key(self, step: Step) -> None:
        self._deed = self.phone.checked(["input", "keyevent", str(KEYS[step.text])])

    def _scroll(self, step: Step) -> int:
        assert step.selector is not None
        begin = None
        for look in self._looks(step):
            begin = look.begin_us if begin is None else begin
            self._deed = (begin, look.end_us)
            if look.screen is None or not look.screen.nodes:
                continue
            if step.selector.find(look.screen, self._app.package):
                break
            area = look.screen.nodes[0].bounds
            x, height = str(area.centre[0]), area.bottom - area.top
            far, near = str(area.top + height * 7 // 10), str(area.top + height * 3 // 10)
            start, end = (far, near) if step.direction == "up" else (near, far)
            self.phone.checked(["input", "swipe", x, start, x, end, "300"])
        assert begin is not None
        return begin

    def _read(self, step: Step) -> int:
        if step.log is not None:
            begin, text = self._read_log(step, step.log)
        else:
            begin, nodes = self._sought(step, tapped=False)
            text = "\n".join(node.text or node.description for node in nodes)
        self.recorder.add("read", begin, step=_place(step), name=step.name, text=text)
        return begin

    def _read_log(self, step: Step, pattern: str) -> tuple[int, str]:
        """Return all lines that match since the recording, or before it the app, began."""
        until = time.monotonic() + step.timeout_s
        while True:
            look, lines = self.phone.log_lines(self._log_since)
            matching = [line.text for line in lines if re.search(pattern, line.text)]
            self._deed = (look.begin_us, look.end_us)
            if matching:
                return look.begin_us, "\n".join(matching)
            self._check_time(step, until, look)
            time.sleep(step.every_s)

    def _wait(self, step: Step) -> None:
        begun, since = self._deed
        begin, not_before, seen, end = (self._wait_log if step.log is not None else self._wait_screen)(step)
        self._deed = (seen if step.log is not None else not_before, seen)
        self.recorder.add(
            "step", begin, end_us=end, step=_place(step), kind=step.kind, what=str(step),
            phases=list(step.phases), since_begun_us=begun, since_us=since, not_before_us=not_before,
            seen_us=seen,
        )  # fmt: skip

    def _wait_screen(self, step: Step) -> tuple[int, int, int, int]:
        """Return when it was first looked, last not there, seen, and done looking."""
        assert step.selector is not None
        begin, not_before = None, self._deed[0]
        for look in self._looks(step):
            begin = look.begin_us if begin is None else begin
            there = look.screen and bool(step.selector.find(look.screen, self._app.package))
            if look.screen is not None and there != step.gone:
                break
            not_before = look.begin_us
        assert begin is not None
        return begin, not_before, look.end_us, look.end_us

    def _wait_log(self, step: Step) -> tuple[int, int, int, int]:
        """Return the same; the log tells when a line was written, whenever it is read."""
        assert step.log is not None
        begun, since = self._deed
        until, begin = time.monotonic() + step.timeout_s, None
        while True:
            look, lines = self.phone.log_lines(begun - _CLOCK_US)
            begin = look.begin_us if begin is None else begin
            new = [line for line in lines if (line.t_us, line.text) not in self._used]
            found = next((line for line in new if re.search(step.log, line.text)), None)
            if found is not None:
                break
            self._check_time(step, until, look)
            time.sleep(step.every_s)
        # What came before it cannot be waited for any more; several lines may have one stamp.
        used = new[: new.index(found) + 1]
        self._used |= {(line.t_us, line.text) for line in used}
        told = [[line.t_us, line.text] for line in used]
        self.recorder.add("log", look.begin_us, step=_place(step), lines=told)
        seen = max(found.t_us, since)
        return begin, seen, seen, look.end_us

    # Looking

    def _sought(self, step: Step, *, tapped: bool = True) -> tuple[int, list[screen.Node]]:
        """Look until the view of a step is there; return the first look's time and the view, or views."""
        assert step.selector is not None
        begin = None
        for look in self._looks(step):
            begin = look.begin_us if begin is None else begin
            found = step.selector.find(look.screen, self._app.package) if look.screen else []
            usable = innermost([node for node in found if node.enabled or not tapped])
            if len(usable) > 1 and tapped:
                raise StepError(
                    f"{len(usable)} views are {step.selector}", "Say which: add id, text or description"
                )
            if usable:
                break
        assert begin is not None
        self._deed = (look.begin_us, look.end_us)
        return begin, usable

    def _looks(self, step: Step) -> Iterator[Look]:
        """Look at the screen again and again until the step's time is over, which is an error."""
        until = time.monotonic() + step.timeout_s
        while True:
            look = self.phone.look()
            if look.xml:
                self.recorder.screen(look.begin_us, look.end_us, _place(step), look.xml)
            problem = screen.in_the_way(look.screen, self._app.package) if look.screen else None
            if problem:
                raise StepError(*problem)
            yield look
            self._check_time(step, until, look)
            time.sleep(step.every_s)

    def _check_time(self, step: Step, until: float, look: Look) -> None:
        """Raise when a step, or the run, has taken as long as it may; or when the probe has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise StepError(
                "the recording ended before the script", "Read the message of the probe, and start again"
            )
        if time.monotonic() >= self._ends:
            raise StepError(
                f"the run did not end before its deadline of {self._deadline_s:g} s",
                "Give the experiment a longer deadline_s, or look at what the app shows",
            )
        if time.monotonic() < until:
            return
        if not self.phone.awake():
            raise StepError("the screen is off", "Write `state: {stay_on: true}` into the experiment")
        disabled = step.kind == "tap" and step.selector and look.screen
        if disabled and step.selector.find(look.screen, self._app.package):  # type: ignore[union-attr,arg-type]
            why = " (the view is there and disabled)"
        else:
            why = f" ({look.why})" if look.why else ""
        texts = list(screen.texts(look.screen))[:_SHOWN_TEXTS] if look.screen else []
        shown = f"; the screen shows: {' / '.join(texts)[:400]}" if texts else ""
        raise StepError(
            f"nothing came of it within {step.timeout_s:g} s{why}{shown}",
            "Compare the step with the last screen, or give it a longer timeout_s",
        )


def _place(step: Step) -> str:
    """Return a step's place in its script: `run.3`."""
    return ".".join(step.where.rsplit(".", 2)[-2:])
