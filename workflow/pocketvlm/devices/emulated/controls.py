"""What obeys on the emulated phone: the switches that root, a setting or a command may turn.

Pure. A text that such a file would refuse on a phone is no switch: `accepted` says which it takes.
Sources: Documentation/admin-guide/pm/cpufreq.rst (scaling_governor, scaling_min_freq, scaling_max_freq in
kHz); `input_suspend` of Qualcomm's charger drivers (1: the battery is used though a charger is connected).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GOVERNORS = ("performance", "powersave", "schedutil")
CPUFREQ = "sys/devices/system/cpu/cpufreq"
INPUT_SUSPEND = "sys/class/power_supply/battery/input_suspend"
ENFORCE = "sys/fs/selinux/enforce"
USUAL_BRIGHTNESS = 102


@dataclass(frozen=True)
class Policy:
    """How one cluster's clock is chosen: the governor, and the limits in kHz (None: the cluster's own)."""

    governor: str = "schedutil"
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True)
class Controls:
    """How the switches of a phone stand.

    Attributes:
        policies: by cluster; a cluster beyond them has the usual one.
        charging: a charger is connected and its input is not suspended.
        fixed_performance: Android's fixed performance mode is on.
        brightness: of the screen, 0 to 255.
    """

    policies: tuple[Policy, ...] = ()
    charging: bool = False
    fixed_performance: bool = False
    brightness: int = USUAL_BRIGHTNESS

    def policy(self, cluster: int) -> Policy:
        """Return the policy of a cluster."""
        return self.policies[cluster] if cluster < len(self.policies) else Policy()


def defaults(clusters: Mapping[int, Sequence[int]]) -> dict[str, str]:
    """Return the files that obey and what stands in them on a phone that starts.

    Args:
        clusters: the operating points in kHz, rising, by the first core of each cluster.
    """
    files = {INPUT_SUSPEND: "0", ENFORCE: "1"}
    for first, clocks in clusters.items():
        folder = f"{CPUFREQ}/policy{first}"
        files |= {
            f"{folder}/scaling_governor": "schedutil",
            f"{folder}/scaling_min_freq": str(clocks[0]),
            f"{folder}/scaling_max_freq": str(clocks[-1]),
        }
    return files


def accepted(files: Mapping[str, str], path: str, text: str, clocks: Sequence[int]) -> str | None:
    """Return what a file that obeys takes of a text, or None when it refuses it.

    Args:
        files: what the files hold now.
        path: the file, a key of `defaults`.
        text: what was written to it.
        clocks: the operating points of the cluster that the file is of; any for other files.
    """
    word = text.strip()
    folder, _, name = path.rpartition("/")
    if name == "scaling_governor":
        return word if word in GOVERNORS else None
    if not (word.isascii() and word.isdecimal()) or len(word) > 9:
        return None
    number = int(word)
    if name == "scaling_max_freq":
        number = min(number, clocks[-1])
        return str(number) if number >= int(files[f"{folder}/scaling_min_freq"]) else None
    if name == "scaling_min_freq":
        number = max(number, clocks[0])
        return str(number) if number <= int(files[f"{folder}/scaling_max_freq"]) else None
    return str(number) if number in (0, 1) else None


def controls(
    files: Mapping[str, str],
    clusters: Mapping[int, Sequence[int]],
    *,
    charger: bool,
    fixed_performance: bool,
    brightness: int,
) -> Controls:
    """Return how the switches stand.

    Args:
        files: the content of the files of `defaults`, accepted.
        clusters: as for `defaults`.
        charger: whether a charger is connected.
        fixed_performance: whether that mode is on.
        brightness: 0 to 255.
    """
    policies = tuple(
        Policy(
            files[f"{CPUFREQ}/policy{first}/scaling_governor"],
            int(files[f"{CPUFREQ}/policy{first}/scaling_min_freq"]),
            int(files[f"{CPUFREQ}/policy{first}/scaling_max_freq"]),
        )
        for first in clusters
    )
    return Controls(policies, charger and files[INPUT_SUSPEND] == "0", fixed_performance, brightness)


def choose(policy: Policy, clocks: Sequence[int], wanted: float, cap: float) -> int:
    """Return the clock in kHz that a policy gives.

    Args:
        policy: of the cluster.
        clocks: its operating points, rising.
        wanted: what the load asks for.
        cap: the highest that heat or a mode allows; it goes before every other limit.
    """
    least = clocks[0] if policy.least is None else policy.least
    most = min(clocks[-1] if policy.most is None else policy.most, cap)
    # Between the limits there may be no operating point: then the next one below, as a limit must hold.
    allowed = [clock for clock in clocks if least <= clock <= most]
    allowed = allowed or [max((clock for clock in clocks if clock <= most), default=clocks[0])]
    if policy.governor == "performance":
        return allowed[-1]
    if policy.governor == "powersave":
        return allowed[0]
    return next((clock for clock in allowed if clock >= wanted), allowed[-1])
