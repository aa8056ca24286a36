"""What stands in the emulated phone's folder before it starts: its programs, its settings, its apps.

The programs are files of `android/`. What earlier leases left in `data/` stays, as a phone keeps its settings
over a restart.
"""

from __future__ import annotations

import shutil
from pathlib import Path

PROGRAMS = Path(__file__).with_name("android")
_MARK = """This folder is the emulated phone of pocketvlm. Its sensors below sys/ are modelled.
Nothing measured on it is a phone's.
"""
# What a phone has when it is first switched on. Source: DatabaseHelper.java and res/values/defaults.xml of
# AOSP's SettingsProvider. Another (animator_duration_scale) has no value until somebody sets it.
DEFAULT_SETTINGS = {
    "global/airplane_mode_on": "0",
    "global/heads_up_notifications_enabled": "1",
    "global/stay_on_while_plugged_in": "0",
    "global/transition_animation_scale": "1.0",
    "global/window_animation_scale": "1.0",
    "system/screen_brightness": "102",
    "system/screen_brightness_mode": "1",
    "system/screen_off_timeout": "60000",
}
PACKAGES = (
    "android",
    "com.android.calendar",
    "com.android.deskclock",
    "com.android.email",
    "com.android.launcher3",
    "com.android.settings",
    "com.android.shell",
    "com.android.systemui",
)
# What runs on a phone that has just been switched on, with the process ids that it shows for them.
_RUNNING = {
    "com.android.systemui": 1801,
    "com.android.launcher3": 1902,
    "com.android.calendar": 2203,
    "com.android.email": 2304,
}
_HOME = "com.android.launcher3/.Launcher"


def furnish(root: Path, *, rooted: bool) -> None:
    """Make the phone's folder, or make an earlier one ready for another start.

    Args:
        root: the folder.
        rooted: whether the phone gives root to its shell: `su` is there.
    """
    for folder in ("data/local/tmp/pocketvlm", "data/misc/logd", "data/hal", "sdcard", "sys", "log"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "EMULATED").write_text(_MARK)
    for folder in ("bin", "lib"):
        # No program of another version, and no `su` of a phone that was rooted once.
        shutil.rmtree(root / folder, ignore_errors=True)
        shutil.copytree(PROGRAMS / folder, root / folder)
    for program in (*(root / "bin").iterdir(), *(root / "lib").iterdir()):
        program.chmod(0o755)
    if not rooted:
        (root / "bin/su").unlink()
    (root / "system").mkdir(exist_ok=True)
    shutil.copyfile(PROGRAMS / "build.prop", root / "system/build.prop")
    if not (root / "data/settings").is_dir():
        for name, value in DEFAULT_SETTINGS.items():
            _write(root / "data/settings" / name, value)
    # Apps that were installed stay over a restart, as settings do.
    installed = sorted(path.parent.name for path in (root / "data/app").glob("*/app"))
    _write(root / "data/system/packages.list", "\n".join([*PACKAGES, *installed]))
    _start_apps(root / "data/activity")
    for log in (root / "log").iterdir():
        log.unlink()


def environment(root: Path, address: str, port: int) -> dict[str, str]:
    """Return adbd's whole environment, which the commands on the phone inherit: nothing of the user's.

    Args:
        root: the phone's folder.
        address, port: where adbd listens.
    """
    return {
        "PATH": f"{root}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(root),
        "SHELL": "/bin/sh",
        "TMPDIR": f"{root}/data/local/tmp",
        "LC_ALL": "C.UTF-8",
        # Where the phone's own programs find it.
        "POCKETVLM_PHONE": str(root),
        "ADBD_PORT": str(port),
        "POCKETVLM_BIND_ADDRESS": address,
    }


def _start_apps(folder: Path) -> None:
    """Show the home screen and run what always runs; no fixed performance mode outlives a start."""
    shutil.rmtree(folder, ignore_errors=True)
    for package, process in _RUNNING.items():
        _write(folder / "running" / package, str(process))
    _write(folder / "foreground", _HOME)
    # Nor does a lock, or a screen that is off: they are files of the same folder.
    shutil.rmtree(folder.parent / "power", ignore_errors=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
