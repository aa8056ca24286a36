"""This machine with what a phone has: Android's `settings`, `cmd` and `am`, cpufreq policies and a charger.

Their state is real: files that the programs and the tests read and write. It is smaller and faster than the
emulated phone, has no bridge, and its calls can be counted and cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pocketvlm.devices.base import Progress, Result
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError

# `settings` as Android's: `null` for what was never set, an exception for a table that there is not.
SETTINGS = """#!/bin/sh
store={root}/settings/$2
case $2 in system | global | secure) ;; *) echo "java.lang.IllegalArgumentException: $2" >&2; exit 255 ;; esac
case $1 in
    get) cat "$store/$3" 2>/dev/null || echo null ;;
    put) printf '%s\\n' "$4" >"$store/$3" ;;
    delete) rm -f "$store/$3"; echo "Deleted 1 rows" ;;
    *) exit 255 ;;
esac
"""
CMD = """#!/bin/sh
case "$1 $2" in
    "connectivity airplane-mode")
        case $3 in
            enable) echo 1 >{root}/settings/global/airplane_mode_on ;;
            disable) echo 0 >{root}/settings/global/airplane_mode_on ;;
        esac ;;
    "power set-fixed-performance-mode-enabled") echo "$3" >{root}/fixed_performance ;;
    *) echo "Can't find service: $1" >&2; exit 20 ;;
esac
"""
AM = """#!/bin/sh
if [ "$1" = force-stop ]; then rm -f "{root}/apps/$2"; fi
"""
# As toybox' `ps -A -o ARGS`: a header, and a process of an app by its package.
PS = """#!/bin/sh
echo COMMAND
ls {root}/apps
"""
# What is written here need not survive a loss of power.
SYNC = "#!/bin/sh\n"
CLOCKS = (500000, 1000000, 1500000, 2000000)
SUSPEND = "sys/class/power_supply/battery/input_suspend"
STATUS = "sys/class/power_supply/battery/status"
SERIAL = "1a2b3c4d"


class FakePhone(LocalDevice):
    """A phone in a folder of this machine.

    Attributes:
        folder: where its settings, files and apps are.
        after: called after each command and push.
    """

    def __init__(self, folder: Path, *, root: bool = True, kind: str = "phone") -> None:
        super().__init__("pixel", folder / "device")
        self.folder = folder
        self.kind = kind
        self.serial = SERIAL
        self.root = root
        self.sysfs_root = str(folder)
        self.after: Callable[[], None] = lambda: None
        self._commands = folder / "bin"

    def shell(self, argv: Sequence[str], timeout: float) -> Result:
        """Run a command where Android's programs are found."""
        command = ["env", f"PATH={self._commands}:/usr/bin:/bin", *argv]
        result = super().shell(command, timeout)
        _drive(self.folder)
        self.after()
        return result

    def push(self, local: Path, remote: str, mode: int = 0o644, *, progress: Progress | None = None) -> None:
        """Copy a file to it."""
        super().push(local, remote, mode, progress=progress)
        self.after()

    def as_root(self, argv: Sequence[str]) -> list[str]:
        """Return the command as it is: the test's user may write all of the phone."""
        if not self.root:
            raise DeviceError("nothing runs as root there", do="Write `root: true`")
        return list(argv)

    def root_shell(self, argv: Sequence[str], timeout: float) -> Result:
        """Run a command as root."""
        return self.shell(self.as_root(argv), timeout)

    def setting(self, name: str) -> str | None:
        """Return what a setting holds, None for what was never set."""
        path = self.folder / "settings" / name
        return path.read_text().strip() if path.is_file() else None

    def put(self, name: str, value: str) -> None:
        """Set a setting, or write a file below its root, as a person does."""
        path = self.folder / (name if name.startswith("sys/") else f"settings/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
        _drive(self.folder)

    def everything(self) -> dict[str, str]:
        """Return all that can be changed on it: every setting and every file of its sysfs."""
        return {
            str(path.relative_to(self.folder)): path.read_text().strip()
            for place in ("settings", "sys")
            for path in sorted((self.folder / place).rglob("*"))
            if path.is_file()
        }


def fake_phone(folder: Path, *, root: bool = True, android: bool = True, kind: str = "phone") -> FakePhone:
    """Return a phone with two clusters, on its charger, with some settings set and others never."""
    phone = FakePhone(folder, root=root, kind=kind)
    (folder / "apps").mkdir(parents=True, exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    for table in ("system", "global", "secure"):
        (folder / "settings" / table).mkdir(parents=True, exist_ok=True)
    programs = {"settings": SETTINGS, "cmd": CMD, "am": AM, "ps": PS} if android else {}
    programs |= {"fsync": SYNC, "sync": SYNC}
    for name, text in programs.items():
        path = folder / "bin" / name
        path.write_text(text.replace("{root}", str(folder)))
        path.chmod(0o755)
    if android:
        phone.put("global/airplane_mode_on", "0")
        phone.put("system/screen_brightness_mode", "1")
        phone.put("system/screen_brightness", "128")
        phone.put("system/screen_off_timeout", "30000")
        phone.put("global/window_animation_scale", "1.0")
    for policy in ("policy0", "policy4"):
        place = f"sys/devices/system/cpu/cpufreq/{policy}"
        phone.put(f"{place}/scaling_governor", "schedutil")
        phone.put(f"{place}/scaling_available_governors", "performance powersave schedutil")
        phone.put(f"{place}/scaling_available_frequencies", " ".join(map(str, CLOCKS)))
        phone.put(f"{place}/cpuinfo_max_freq", str(CLOCKS[-1]))
        phone.put(f"{place}/scaling_min_freq", str(CLOCKS[0]))
        phone.put(f"{place}/scaling_max_freq", str(CLOCKS[-1]))
    phone.put(SUSPEND, "0")
    return phone


def _drive(folder: Path) -> None:
    """Let the charger's driver do what it does: no charge while its input is suspended."""
    suspend = folder / SUSPEND
    if suspend.is_file():
        suspended = suspend.read_text().strip() == "1"
        (folder / STATUS).write_text("Discharging\n" if suspended else "Charging\n")


CONFIG = {
    "id": "pixel",
    "kind": "phone",
    "target": "aarch64-linux-musl",
    "host_cores": False,
    "transport": {"serial": SERIAL, "server_port": 5037},
    "remote_dir": "/data/local/tmp/pocketvlm",
    "sysfs_root": "",
    "exec_prefix": [],
    "periods_ms": dict.fromkeys(
        ("cpu", "memory", "workload", "gpu", "npu", "thermal", "battery", "rapl"), 100
    ),
}
"""The phone's file of `config/devices`."""
