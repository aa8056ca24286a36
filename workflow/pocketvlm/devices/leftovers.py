"""What an earlier block left on a device when it was killed or its cable was pulled: ended and removed.

Whoever calls this holds the device's lock, so that nothing of ours on the device belongs to anybody else.
"""

from __future__ import annotations

import logging

from pocketvlm.devices.base import Device, run
from pocketvlm.devices.root import privileged

log = logging.getLogger(__name__)

# A phone goes on with what it was told when its cable is pulled: the workload would run beside the next one.
# Ours are programs of the folder: their command begins with it, or with the prefix that runs them, and names
# it. The path is put together on the device, so that the shell's own command line does not hold it; that of
# grep does, but it has ended when its answer is used. One grep, because a phone has a thousand processes.
# An app that was driven runs on as well, and its picture lies in the shared storage: `runs/*.app` names both.
_SCRIPT = r"""
cd "$1" 2>/dev/null || exit 0
for file in $(grep -l -F -e "$1/objects/" /proc/[0-9]*/cmdline 2>/dev/null); do
    case $(tr '\0' '\n' <"$file" 2>/dev/null | head -n 1) in "$2"*) ;; *) continue ;; esac
    process=${file#/proc/}
    process=${process%/cmdline}
    kill -KILL "$process" 2>/dev/null && echo "$process"
done
for file in runs/*.app; do
    [ -f "$file" ] || continue
    { IFS= read -r package && IFS= read -r image; } <"$file" || continue
    am force-stop "$package" >/dev/null 2>&1
    case ${image##*/} in pocketvlm-*) rm -f "$image" ;; esac
done
rm -rf runs
rm -f objects/*/.*.part
"""


def clear(device: Device) -> None:
    """End what still runs from the device's folder of pocketvlm, and remove half-pushed files and old runs.

    Raises:
        DeviceError, TransientDeviceError: the device refuses or does not answer.
    """
    # What ran as root can be ended, and what it wrote be removed, by root alone.
    first = device.exec_prefix[0] if device.exec_prefix else f"{device.remote_dir}/objects/"
    script = privileged(device, ["sh", "-c", _SCRIPT, "sh", device.remote_dir, first])
    ended = run(device, script, 60).split()
    if ended:
        log.warning("ended %d processes that an earlier block had left on %s", len(ended), device.id)
