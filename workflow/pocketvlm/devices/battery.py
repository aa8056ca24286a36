"""A device's own battery: which supply it is, and its sensors."""

from __future__ import annotations

from pocketvlm.devices.found import Found, Sensors, natural

_SUPPLIES = "/sys/class/power_supply"


def measured(found: Found) -> str | None:
    """Return the folder of the battery whose current can be read and is the whole device's; None: no such."""
    names, _ = _batteries(found)
    if not names or _shared(names) or found.files.get(f"{_SUPPLIES}/{names[0]}/current_now") is None:
        return None
    return f"{_SUPPLIES}/{names[0]}"


def counter(found: Found) -> str:
    """Return the file that counts charge, in uAh by sysfs-class-power; a laptop's has a name of its own."""
    names, _ = _batteries(found)
    told = names and found.files.get(f"{_SUPPLIES}/{names[0]}/charge_counter") is not None
    return "charge_counter" if told else "charge_now"


def add_battery(found: Found, sensors: Sensors) -> None:
    """Add the sensors of the device's own battery; a current of unknown unit or sign is left out."""
    names, peripherals = _batteries(found)
    if not names:
        whose = f"; {', '.join(peripherals)} is a peripheral's" if peripherals else ""
        for quantity in ("current", "voltage", "charge", "battery_status"):
            sensors.lack(quantity, "battery", f"no battery of the device under {_SUPPLIES}{whose}")
        return
    base = f"{_SUPPLIES}/{names[0]}"
    charge = counter(found)
    rows: tuple[tuple[str, str, str, str, str, float | None, str], ...] = (
        ("current_now", "first", "current", "battery", "A", found.current_scale, "gauge"),
        ("voltage_now", "first", "voltage", "battery", "V", 1e-6, "gauge"),
        (charge, "first", "charge", "battery", "Ah", 1e-6, "counter"),
        ("temp", "first", "temperature", "battery.power_supply", "degC", 0.1, "gauge"),
        ("status", "text", "battery_status", "battery", "text", None, "text"),
    )
    packs = _shared(names)
    for file, select, quantity, component, unit, scale, kind in rows:
        path = f"{base}/{file}"
        if quantity == "current" and packs:
            sensors.lack(
                quantity, component, f"{' and '.join(packs)} share the load and no sensor is their sum"
            )
        elif found.files.get(path) is None:
            sensors.lack(quantity, component, _why_not(found, base, file))
        elif quantity == "current" and found.current_scale is None:
            sensors.lack(quantity, component, f"uncalibrated: {found.uncalibrated}")
        else:
            name = f"battery.{file.removesuffix('_now')}"
            sensors.add(name, "battery", path, select, quantity, component, unit, scale, kind)


def _shared(names: list[str]) -> list[str]:
    """Return the packs that share the load, none where the first battery carries all of it."""
    packs = [name for name in names if name.startswith("BAT")]
    return packs if names[0] in packs and len(packs) > 1 else []


def _batteries(found: Found) -> tuple[list[str], list[str]]:
    """Return the supplies that are the device's own batteries, the one to read first, and the peripherals'.

    Source: Documentation/ABI/testing/sysfs-class-power: `type` is Battery for both, and `scope` Device for a
    battery that powers a peripheral (a mouse) only.
    """
    own: list[str] = []
    peripherals: list[str] = []
    for name in sorted({match[1] for match, _ in found.below(rf"{_SUPPLIES}/([^/]+)/[^/]+")}):
        # The names of Android's and of ACPI's batteries speak for them where the type does not.
        named = name == "battery" or name.startswith("BAT")
        if not named and found.files.get(f"{_SUPPLIES}/{name}/type") != "Battery":
            continue
        scope = found.files.get(f"{_SUPPLIES}/{name}/scope")
        (peripherals if scope == "Device" else own).append(name)
    own.sort(key=lambda name: (name != "battery", not name.startswith("BAT"), natural(name)))
    return own, peripherals


def _why_not(found: Found, base: str, file: str) -> str:
    path = f"{base}/{file}"
    if path in found.files:
        return f"{path} cannot be read"
    # Laptops may tell watt and watt-hours instead, from which no current or charge can be had exactly.
    instead = {"current_now": "power_now", "charge_now": "energy_now"}.get(file)
    shown = f"; {instead} is, which is not used" if instead and f"{base}/{instead}" in found.files else ""
    return f"{path} is not there{shown}"
