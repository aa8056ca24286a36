"""The folder of pocketvlm on a device: marked as ours when it is made, so that it alone is ever removed.

Everything that is written to a device lies below `remote_dir`. A file there, `.pocketvlm`, says that the
folder was made for this and may be removed whole; a folder without it is somebody else's. Whoever calls these
functions holds the device.
"""

from __future__ import annotations

import logging
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from pocketvlm.devices.base import Device, run
from pocketvlm.errors import DeviceError

log = logging.getLogger(__name__)

MARK = ".pocketvlm"
MARK_TEXT = "This folder is pocketvlm's: `snakemake clean_device` removes it with everything in it.\n"
# What earlier versions wrote below a folder that they did not mark yet; `objects` was always among it.
_BEFORE_MARKS = frozenset({"objects", "runs", "home", "tmp"})
_TIMEOUT_S = 30.0
# Flash of a phone deletes some GB of large files in seconds, and many small ones more slowly.
_REMOVE_S = 900.0

# Folders of Android and of any Linux that hold more than one program's things, whatever is in them now.
_SHARED = re.compile(
    r"/|/[^/]+|/data/(local(/tmp)?|data|app|misc|(media|user)(/\d+)?)|/storage(/(emulated|self))?/[^/]+"
    r"|/(dev|home|media|mnt|run|var|usr(/local)?)/[^/]+|/(bin|boot|etc|lib|proc|sbin|sys|system|vendor)/.*"
)

# Says what the folder is: `none`, `link`, `file`, `home`, `ours`, or `other` and the names in it. All of this
# is what mksh and toybox of a phone have.
_LOOK = r"""
dir=$1
if [ -L "$dir" ]; then echo link; exit 0; fi
if [ ! -e "$dir" ]; then echo none; exit 0; fi
if [ ! -d "$dir" ]; then echo file; exit 0; fi
if [ "$dir" -ef "${HOME:-/}" ]; then echo home; exit 0; fi
if [ -f "$dir/$2" ] && [ ! -L "$dir/$2" ]; then echo ours; exit 0; fi
echo other
ls -A "$dir" | head -n 50
"""

_CLAIM = r"""
mkdir -p "$1" && printf '%s' "$3" > "$1/$2"
"""

# The size of everything that is no folder, one a line; links are not followed. The mark is left out.
_SIZES = r"""
cd "$1" && find . ! -type d ! -path "./$2" -exec stat -c %s {} +
"""

# The mark goes last: a removal that was cut off leaves a folder that is still known as ours. It is looked
# for once more by the very script that removes. rm follows no link.
_REMOVE = r"""
cd / || exit 1
if [ -L "$1" ] || [ -L "$1/$2" ] || [ ! -f "$1/$2" ]; then echo "no $2 in $1" >&2; exit 1; fi
find "$1" -mindepth 1 -maxdepth 1 ! -name "$2" -exec rm -rf {} + && rm -f "$1/$2" && rmdir "$1"
"""


@dataclass(frozen=True)
class Removed:
    """What was removed from a device.

    Attributes:
        files: files and links, the mark left out.
        size: their bytes; a link counts with the length of its text.
    """

    files: int
    size: int


def check_path(device: Device) -> None:
    """Raise for a `remote_dir` that can be no folder of our own, whatever is in it.

    Raises:
        DeviceError: it is not absolute, not plain, or a folder that others share.
    """
    path = device.remote_dir
    place = f"config/devices/{device.id}.yaml: remote_dir"
    do = "Name a folder of its own, e.g. /data/local/tmp/pocketvlm on a phone"
    if not path.startswith("/") or any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise DeviceError(f"remote_dir is {path!r}, no absolute path", where=place, do=do)
    plain = "/" + posixpath.normpath(path).lstrip("/")
    if plain != path:
        raise DeviceError(
            f"remote_dir is {path!r}, which has needless parts", where=place, do=f"Write {plain}"
        )
    if _SHARED.fullmatch(path) or _above_ours(device):
        raise DeviceError(
            f"remote_dir is {path}, which holds other things than pocketvlm's", where=place, do=do
        )


def _above_ours(device: Device) -> bool:
    """Whether the folder holds this project or the user's home, where the files are this machine's."""
    if device.kind == "phone":
        return False
    path = Path(device.remote_dir).resolve()
    return any(path == place or path in place.parents for place in (Path.home().resolve(), Path.cwd()))


def claim(device: Device) -> None:
    """Make the device's folder if it is not there, and mark it as ours.

    An empty folder becomes ours, and so does one that an earlier version filled.

    Raises:
        DeviceError: `remote_dir` cannot be a folder of our own, or holds what is not ours.
        TransientDeviceError: the device stopped answering.
    """
    found, names = _look(device)
    if found == "ours":
        return
    if found == "other" and names and not (names <= _BEFORE_MARKS and "objects" in names):
        raise _foreign(device, names)
    run(device, ["sh", "-c", _CLAIM, "sh", device.remote_dir, MARK, MARK_TEXT], _TIMEOUT_S)


def remove(device: Device) -> Removed:
    """Remove the device's folder with everything in it; what its links point to stays.

    Returns:
        What was removed; nothing when the folder was not there.

    Raises:
        DeviceError: the folder is not ours, or something in it cannot be removed. The mark then stays, so
            that it can be tried again.
        TransientDeviceError: the device stopped answering; the mark stays, as above.
    """
    found, names = _look(device)
    if found == "none":
        return Removed(0, 0)
    if found == "other":
        raise _foreign(device, names)
    words = ["sh", device.remote_dir, MARK]
    sizes = [int(line) for line in run(device, ["sh", "-c", _SIZES, *words], _REMOVE_S).split()]
    run(device, ["sh", "-c", _REMOVE, *words], _REMOVE_S)
    return Removed(len(sizes), sum(sizes))


def _look(device: Device) -> tuple[str, frozenset[str]]:
    """Return what the folder is (`none`, `ours`, `other`) and, of one that is not ours, the names in it.

    Raises:
        DeviceError: the path can be no folder of our own, is a link, a file, or the home folder there.
    """
    check_path(device)
    printed = run(device, ["sh", "-c", _LOOK, "sh", device.remote_dir, MARK], _TIMEOUT_S).splitlines()
    found, names = (printed or ["nothing"])[0], frozenset(printed[1:])
    place = f"config/devices/{device.id}.yaml: remote_dir"
    if found in ("link", "file", "home"):
        what = {"link": "a symbolic link", "file": "no folder", "home": "the home folder of its shell"}[found]
        raise DeviceError(
            f"remote_dir of {device.id} is {what}: {device.remote_dir}",
            where=place,
            do="Name a folder of its own, or remove what is there by hand",
        )
    if found not in ("none", "ours", "other"):
        raise DeviceError(
            f"{device.id} does not say what {device.remote_dir} is: {found!r}",
            do="Look at that folder on the device",
        )
    return found, names


def _foreign(device: Device, names: frozenset[str]) -> DeviceError:
    shown = ", ".join(repr(name[:40]) for name in sorted(names)[:5]) or "nothing"
    return DeviceError(
        f"{device.remote_dir} on {device.id} has no file {MARK}, so it was not made by pocketvlm; "
        f"it holds {shown}",
        where=f"config/devices/{device.id}.yaml: remote_dir",
        do=f"Name another folder; only if everything in it is pocketvlm's, put an empty file {MARK} there",
    )
