"""Errors written for the person who meets them: what happened, where, and what to do next."""

from __future__ import annotations

import errno


class PocketvlmError(Exception):
    """An error with a cause and a next step.

    Args:
        what: what happened and to which thing, one sentence without a full stop.
        do: the next step for the person, one sentence without a full stop.
        where: the file, key, device or command it happened at, if `what` does not say it already.
    """

    def __init__(self, what: str, *, do: str, where: str | None = None) -> None:
        self.what = what
        self.do = do
        self.where = where
        place = f" ({where})" if where else ""
        super().__init__(f"{what}{place}. {do}.")


class ConfigError(PocketvlmError):
    """A mistake in the configuration; `where` is the file and the key."""


class IntegrityError(PocketvlmError):
    """Bytes are not what a pin, a manifest or a record says they are."""


class ProvisionError(PocketvlmError):
    """Something the workflow needs (a tool, a package, a source) cannot be had here."""


class DeviceError(PocketvlmError):
    """A device refused or failed; not worth a retry."""


class TransientDeviceError(DeviceError):
    """A device did not answer (offline, timeout): worth a retry."""


class WorkloadError(PocketvlmError):
    """The workload crashed, hung, or printed nothing usable."""


class RegressionError(PocketvlmError):
    """A comparison found one side worse, or could not judge what it was asked to judge."""


# What a file system of this machine says, and no socket.
_OF_THE_DISK = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "has no more room for this user",
    errno.EFBIG: "takes no larger file",
    errno.EROFS: "cannot be written to",
    errno.EIO: "has an input/output error",
}


def of_the_disk(error: BaseException) -> PocketvlmError | None:
    """Return what a failed write to this machine's disk means for a person; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _OF_THE_DISK:
        return None
    return PocketvlmError(
        f"this machine's disk {_OF_THE_DISK[error.errno]}: {error.strerror}",
        where=None if error.filename is None else str(error.filename),
        do="Free space there, or mend the disk, and start again: finished runs are kept",
    )
