"""Holding a device in a wanted state for a block: save, set, verify, and afterwards give back and verify.

Who calls holds the device's lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketvlm.devices.base import Device
from pocketvlm.errors import DeviceError, PocketvlmError
from pocketvlm.measure.state import items, journal
from pocketvlm.measure.state.items import BRIGHTNESS, BRIGHTNESS_MODE, FIXED_PERFORMANCE, Seen
from pocketvlm.measure.state.journal import DamagedJournalError, Journal
from pocketvlm.measure.state.wants import WANTS, Plan, looks_at, plan

log = logging.getLogger(__name__)

# Airplane mode and a charger's driver do not answer at once.
_SETTLE_S = 3.0
_SETTLE_CHARGER_S = 15.0
_POLL_S = 0.25
_STOP_S = 20.0
_NOT_TOLD_BACK = "set without an error; the device has no way to read it back"


class Held:
    """A device that a block holds in a state."""

    def __init__(self, device: Device, wanted: Mapping[str, Any], planned: Plan | None, seen: Seen) -> None:
        self._device = device
        self._wanted = wanted
        self._planned = planned
        self._names = looks_at(wanted)
        self._said: dict[str, str] = {}
        self._failed: set[str] = set()
        self._seen = seen
        self._status = {seen.status}
        self._warned = False

    def set(self) -> None:
        """Set what is not as wanted, and verify it; what did not become so is unmet from then on."""
        assert self._planned is not None
        self._write(self._planned, self._seen)
        self._settle(self._planned)
        self._failed = set(self._wrong(self._planned))
        for want, why in self._unmet().items():
            log.warning("%s: %s is not as wanted: %s", self._device.id, want, why)

    def before_run(self) -> None:
        """Verify the state, and set again what somebody has changed."""
        if self._planned is None and self._device.kind == "local":
            return
        self._look()
        self._status = {self._seen.status}
        planned = self._planned
        changed = sorted(self._wrong(planned).keys() - self._failed) if planned is not None else []
        if planned is not None and changed:
            log.warning(
                "%s: %s changed during the block and is set again", self._device.id, ", ".join(changed)
            )
            self._write(planned, self._seen, only=changed)
            self._settle(planned)
            self._failed |= self._wrong(planned).keys() & set(changed)
        self._warn()

    def after_run(self) -> dict[str, Any]:
        """Verify the state once more and return what the run's `meta.json` says of it; empty for nothing.

        Raises:
            TransientDeviceError: the device does not answer; in which state it ran is then not known.
        """
        if self._planned is not None:
            self._look()
            self._status.add(self._seen.status)
        unclean = self._unclean()
        if not self._wanted and not unclean:
            return {}
        return {"state": self._record() | ({"power_not_clean": unclean} if unclean else {})}

    def _record(self) -> dict[str, Any]:
        planned = self._planned
        if planned is None:
            return {"wanted": {}, "found": {}, "set": {}, "unmet": {}}
        unmet = self._unmet()
        met = {
            want: WANTS[want].value(self._seen)
            for want in planned.targets
            if want not in unmet and want in WANTS
        }
        blind = {want for want in met if FIXED_PERFORMANCE in planned.targets[want]}
        met |= {want: self._wanted[want] for want in blind}
        if "stop_apps" in self._wanted and "stop_apps" not in unmet:
            met["stop_apps"] = list(planned.stop)
        return {
            "wanted": dict(self._wanted),
            "found": dict(planned.found),
            "set": met,
            "unmet": unmet,
            **({"unverified": dict.fromkeys(sorted(blind), _NOT_TOLD_BACK)} if blind else {}),
        }

    def _unmet(self) -> dict[str, str]:
        planned = self._planned
        if planned is None:
            return {}
        return {**planned.unmet, **self._wrong(planned)}

    def _wrong(self, planned: Plan) -> dict[str, str]:
        """Return which wants are not as they are to be, and how they are, from the last look."""
        found: dict[str, str] = {}
        for want, goal in planned.targets.items():
            wrong = [
                f"{item} is {items.plain(self._seen.values.get(item, 'not told'))} and should be {value}"
                for item, value in goal.items()
                if item != FIXED_PERFORMANCE and not _as_wanted(item, value, self._seen)
            ]
            if want == "charging" and not self._wanted[want] and self._seen.status not in ("", "Discharging"):
                wrong.append(f"the battery's status is {items.plain(self._seen.status)} all the same")
            said = self._said.get(want, "")
            if wrong:
                found[want] = ", ".join([*wrong[:3], *([f"the device said: {said}"] if said else [])])
            elif said and FIXED_PERFORMANCE in goal:
                found[want] = f"the device said: {said}"
        if "stop_apps" in self._wanted and "stop_apps" not in planned.unmet and self._seen.apps:
            found["stop_apps"] = f"runs again after it was stopped: {', '.join(sorted(self._seen.apps))}"
        return found

    def _write(self, planned: Plan, seen: Seen, only: Sequence[str] | None = None) -> None:
        wants = [want for want in planned.targets if only is None or want in only]
        owners: dict[str, list[str]] = {}
        changes: dict[str, str] = {}
        for want in wants:
            self._said.pop(want, None)
            for item, value in planned.targets[want].items():
                if not _as_wanted(item, value, seen):
                    changes[item] = value
                    owners.setdefault(item, []).append(want)
        for item, value in items.arranged(changes, seen):
            if said := items.write(self._device, item, value):
                self._said |= dict.fromkeys(owners[item], said)
        if "stop_apps" in self._wanted and (only is None or "stop_apps" in only):
            for package in sorted(seen.apps) if "stop_apps" not in planned.unmet else ():
                self._device.shell(["am", "force-stop", package], _STOP_S)

    def _settle(self, planned: Plan) -> None:
        end = time.monotonic() + (_SETTLE_CHARGER_S if "charging" in planned.targets else _SETTLE_S)
        while True:
            self._look()
            # What the device refused does not come by waiting.
            if not self._wrong(planned).keys() - self._said.keys() or time.monotonic() >= end:
                return
            time.sleep(_POLL_S)

    def _look(self) -> None:
        self._seen = items.look(self._device, self._names, self._wanted.get("stop_apps", ()))

    def _unclean(self) -> str:
        """Return why the battery's current is not what the device uses; empty where nothing says so."""
        supplied = sorted(status for status in self._status if status in ("Charging", "Full", "Not charging"))
        if self._device.kind == "local" or not supplied:
            return ""
        return f"the battery's status is {supplied[0]}: a charger supplies the device"

    def _warn(self) -> None:
        if (unclean := self._unclean()) and not self._warned:
            log.warning("%s: power is not clean, for %s", self._device.id, unclean)
            self._warned = True


def _as_wanted(item: str, value: str, seen: Seen) -> bool:
    return items.same(item, items.effective(item, seen.values.get(item)), value)


@contextmanager
def in_state(
    device: Device, wanted: Mapping[str, Any], *, config: Mapping[str, Any], results: Path
) -> Iterator[Held]:
    """Hold a device in the state that an experiment wants, and give back what it was like before.

    What the device does not let set is recorded as unmet, with the reason; it is no error.

    Args:
        device: the device, open and locked.
        wanted: the experiment's `state`; with none nothing is set, and the battery is looked at all the same.
        config: the device's file of `config/devices`.
        results: folder of results, kept in the journal.

    Raises:
        DeviceError: what was changed could not be given back; the journals stay, and the message says what
            remains. While another error is on its way this is a warning in the log.
        TransientDeviceError: the device does not answer.
    """
    if not wanted:
        yield Held(device, {}, None, Seen())
        return
    path = journal.host_path(journal.of_this_phone(device, config))
    if path.exists():
        recover(device, config)
    packages = wanted.get("stop_apps", ())
    seen = items.look(device, looks_at(wanted), packages)
    planned = plan(device, wanted, seen)
    held = Held(device, wanted, planned, seen)
    if not _changes(planned, seen):
        held.set()
        yield held
        return
    try:
        journal_of_now = journal.new(device, config, results, planned.saved)
        journal.write_host(path, journal_of_now)
        journal.write_device(device, journal_of_now)
    except BaseException:
        # Nothing has been changed yet.
        path.unlink(missing_ok=True)
        raise
    try:
        log.info("setting the state of %s: %s", device.id, ", ".join(planned.targets))
        held.set()
        yield held
    except BaseException:
        try:
            _end(device, path, planned.saved)
        except PocketvlmError as error:
            log.warning("%s", error)
        raise
    _end(device, path, planned.saved)


def _changes(planned: Plan, seen: Seen) -> bool:
    """Whether anything will be set that has to be given back."""
    return any(
        not _as_wanted(item, value, seen) for goal in planned.targets.values() for item, value in goal.items()
    )


def _end(device: Device, path: Path, values: Mapping[str, str]) -> None:
    give_back(device, values, path)
    journal.remove(path, device)
    log.info("%s has its settings back", device.id)


def recover(device: Device, config: Mapping[str, Any]) -> bool:
    """Give back what a killed block left set on a device; return whether there was anything.

    Args:
        device: the device, open and locked.
        config: its file of `config/devices`.

    Raises:
        DeviceError: something could not be given back; the journals stay, and the message says what remains.
        TransientDeviceError: the device does not answer.
    """
    path = journal.host_path(journal.of_this_phone(device, config))
    host = _read(lambda: journal.read_host(path), f"the journal {path}", lambda: journal.put_aside(path))
    on_device = _read(
        lambda: journal.read_device(device),
        f"the journal {journal.device_path(device)} on {device.id}",
        lambda: journal.put_aside_on(device),
    )
    left = journal.merged(host, on_device)
    if left is None:
        return False
    log.warning(
        "%s was left as a block had set it, saved %s: giving back %d settings",
        device.id,
        left.saved,
        len(left.values),
    )
    for entry in left.strange:
        log.warning("the journal of %s has an entry that is no setting of a device: %s", device.id, entry)
    give_back(device, left.values, path)
    if left.strange and path.exists():
        log.warning("it is kept to be looked at: %s", journal.put_aside(path))
    journal.remove(path, device)
    log.info("%s has its settings back", device.id)
    return True


def _read(read: Callable[[], Journal | None], what: str, put_aside: Callable[[], object]) -> Journal | None:
    """Read a journal; one that is damaged is put aside and said so, and is none."""
    try:
        return read()
    except DamagedJournalError as error:
        kept = put_aside()
        log.warning(
            "%s is damaged: %s. If no other journal has it, look by hand whether airplane mode, brightness "
            "and clocks are as they should be; it is kept as %s",
            what,
            error,
            kept,
        )
        return None


def give_back(device: Device, values: Mapping[str, str], path: Path) -> None:
    """Give items their values back and verify it.

    Args:
        device: the device.
        values: by item; nothing that is not of the table.
        path: the host's journal, for the message.

    Raises:
        DeviceError: some are not as they were; the message says which, and what to type.
        TransientDeviceError: the device does not answer.
    """
    # The brightness before its mode: while it is automatic the phone sets it itself.
    order = sorted(values, key=lambda item: (item == BRIGHTNESS_MODE, item))
    seen = items.look(device, order)
    changes = {
        item: values[item] for item in order if not items.same(item, seen.values.get(item), values[item])
    }
    said = {item: items.write(device, item, value) for item, value in items.arranged(changes, seen)}
    end = time.monotonic() + _SETTLE_S
    while True:
        seen = items.look(device, order)
        left = {item: value for item, value in changes.items() if not _given_back(item, value, seen)}
        if not left:
            return
        if all(said.get(item) for item in left) or time.monotonic() >= end:
            break
        time.sleep(_POLL_S)
    told = ", ".join(
        f"{item} is {items.plain(seen.values.get(item, 'not told'))} and was {value}"
        f"{f' (the device said: {said[item]})' if said.get(item) else ''}"
        for item, value in left.items()
    )
    by_hand = "; ".join(items.by_hand(device, item, value) for item, value in left.items())
    raise DeviceError(
        f"not all settings of {device.id} could be given back: {told}",
        where=str(path),
        do=f"Set it by hand ({by_hand}) and start again; the journal is kept until it is so, and can be "
        "deleted if the device is to stay as it is",
    )


def _given_back(item: str, value: str, seen: Seen) -> bool:
    # What a phone refuses to switch off it has refused to switch on, for want of such a mode.
    if item == FIXED_PERFORMANCE:
        return True
    # Automatic brightness, which was given back as well, moves it at once.
    if item == BRIGHTNESS and items.effective(BRIGHTNESS_MODE, seen.values.get(BRIGHTNESS_MODE)) == "1":
        return True
    return items.same(item, seen.values.get(item), value)
