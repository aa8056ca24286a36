"""What killed blocks left set on the devices of this host: given back when a workflow starts, if it can be.

Each journal is a process of its own with a deadline, so that a device that hangs holds nobody up.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pocketvlm.config.schema import validate
from pocketvlm.devices import absence, lock_name, open_device
from pocketvlm.devices.locks import device_lock, host_lock
from pocketvlm.errors import ConfigError, PocketvlmError, TransientDeviceError
from pocketvlm.measure.state import journal
from pocketvlm.measure.state.journal import DamagedJournalError
from pocketvlm.measure.state.keep import recover

_DEADLINE_S = 60.0


def give_back_left(report: Callable[[str], None]) -> None:
    """Give back what the journals of this host say, on every device that can be reached and is free.

    Args:
        report: takes a line for a person.
    """
    for path in waiting():
        command = [sys.executable, "-P", "-m", "pocketvlm.measure.state", str(path)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DEADLINE_S
            )
            lines = [*done.stdout.splitlines(), *done.stderr.splitlines()[-1:]]
        except subprocess.TimeoutExpired:
            lines = [
                f"the device of {path} did not answer within {_DEADLINE_S:g} s; its settings wait for it"
            ]
        for line in lines:
            report(line)


def waiting() -> list[Path]:
    """Return the journals of this host."""
    folder = journal.folder()
    return sorted(folder.glob("*.json")) if folder.is_dir() else []


def give_back_one(path: Path) -> str:
    """Give back what one journal says, if its device is there and free; return a line about it."""
    try:
        found = journal.read_host(path)
        if found is None:
            return ""
        config = dict(found.device)
        validate(config, "device", where=str(path))
    except (DamagedJournalError, ConfigError) as error:
        # Which device's it is, and whether a block holds that now, is not known: it is left where it is.
        return (
            f"the journal {path} of a device's settings is damaged: {error}. Look at the device's airplane "
            "mode, brightness and clocks by hand, and delete it"
        )
    reason = absence(config)
    if reason is not None:
        return f"{config['id']} has settings to be given back, saved {found.saved}: {reason}"
    with ExitStack() as stack:
        try:
            if config["host_cores"]:
                stack.enter_context(host_lock(deadline=0, report=_silent))
            stack.enter_context(device_lock(lock_name(config), deadline=0, report=_silent))
        except TransientDeviceError:
            # A block is at work, and gives them back itself.
            return ""
        try:
            device = stack.enter_context(open_device(config, results=Path(found.results)))
            recover(device, config)
        except PocketvlmError as error:
            return f"{config['id']} has settings to be given back, saved {found.saved}: {error}"
    return f"{config['id']} has its settings back, as a block that was killed had saved them {found.saved}"


def main(arguments: list[str]) -> int:
    """Give back what the journal says that is named, and say so."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    if line := give_back_one(Path(arguments[0])):
        sys.stdout.write(f"{line}\n")
    return 0


def _silent(line: str) -> None:
    """Say nothing: nobody waits here."""
