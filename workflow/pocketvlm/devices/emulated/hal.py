"""What the emulated phone's services know and its sysfs need not show: the files below `data/hal`.

On a phone, `dumpsys battery` and `dumpsys thermalservice` ask the vendor's HAL, and `dumpsys gpu --gpuwork` a
map that the kernel fills: they answer where the shell may not read sysfs. The values are those of `sysfs`.
"""

from __future__ import annotations

from pocketvlm.devices.emulated.model import Phone, State
from pocketvlm.devices.emulated.sysfs import zones

# Temperature types and the skin's thresholds by throttling status 1 to 6.
# Source: hardware/interfaces/thermal, TemperatureType.aidl and ThrottlingSeverity.aidl; the degrees are ours.
_TYPES = (("cpu", 0), ("gpu", 1), ("battery", 2), ("skin", 3), ("nsp", 9))
SKIN_CELSIUS = (39.0, 41.0, 43.0, 45.0, 47.0, 55.0)
# Source: BatteryManager.java, BATTERY_STATUS_*.
_STATUS = {"Charging": 2, "Discharging": 3, "Not charging": 4, "Full": 5}


def severity(celsius: float) -> int:
    """Return the throttling status of a skin temperature: 0 none to 6 shutdown."""
    return sum(celsius >= limit for limit in SKIN_CELSIUS)


def files(phone: Phone, state: State, *, counter: bool) -> dict[str, tuple[int, str]]:
    """Return the files: width in bytes and content, by path below the phone's root.

    Args:
        phone, state: of the model.
        counter: whether the gauge counts charge; services say 0 where it does not.
    """
    _, volts = state.gauge
    battery = {
        "usb": str(state.charger).lower(),
        "charge_counter": str(round(state.charge / 3.6e-3)) if counter else "0",
        "status": str(_STATUS[state.status]),
        "level": str(round(100 * state.charge / phone.charge_full)),
        "voltage": str(round(volts * 1e3)),
        "temperature": str(round(state.temperatures["battery"] * 10)),
    }
    skin = severity(state.temperatures["skin"])
    temperatures = [
        f"{celsius:.1f} {kind} {zone} {skin if kind == 3 else 0}"
        for zone, celsius in zones(phone, state)
        for word, kind in _TYPES
        if word in zone
    ]
    screen, workload = (round(seconds * 1e9) for seconds in state.gpu_work)
    # Inactive is the rest of the time in which the screen has frames to compose, here all of it.
    idle = max(0, round(sum(state.time_in_state[0].values()) * 1e9) - screen)
    return {
        "data/hal/battery": (256, "\n".join(f"{name} {value}" for name, value in battery.items())),
        "data/hal/thermal": (64 * (len(temperatures) + 2), "\n".join([str(skin), *temperatures])),
        "data/hal/gpu_work": (160, f"1000 {screen} {idle}\n2000 {workload} 0"),
    }
