"""The load and the clock of a GPU, and the load of an NPU: whichever of their drivers' files a device has."""

from __future__ import annotations

from pocketvlm.devices.found import Found, Sensors

GPU_WORK = "dumpsys gpu --gpuwork"

# Files that tell the GPU's load in percent, in order of preference: path and select. Sources, in this order:
# kgsl_pwrctrl.c of Qualcomm's public kernels; kbase of Mali as Tensor and others build it; MediaTek's ged
# driver, a parameter and a file (`load block idle`); Samsung's kernels for Exynos (`N%`).
_GPU_BUSY = (
    ("/sys/class/kgsl/kgsl-3d0/gpu_busy_percentage", "first"),
    ("/sys/class/misc/mali0/device/utilization", "first"),
    ("/sys/module/ged/parameters/gpu_loading", "first"),
    ("/sys/kernel/ged/hal/gpu_utilization", "field:0"),
    ("/sys/kernel/gpu/gpu_busy", "first"),
)
# Files that tell it in a form that the probe takes no number from, with the reason.
_GPU_BUSY_UNREAD = (
    (r"/sys/class/kgsl/kgsl-3d0/gpubusy", "tells two times, whose ratio no select of the probe takes"),
    (
        r"/sys/class/devfreq/[^/]*(?:mali|gpu|kgsl)[^/]*/load",
        "tells `load@clock`, which no select of the probe takes apart",
    ),
)
_GPU_FREQUENCY = (
    r"/sys/class/kgsl/kgsl-3d0/gpuclk",
    r"/sys/class/kgsl/kgsl-3d0/devfreq/cur_freq",
    r"/sys/class/misc/mali0/device/devfreq/[^/]+/cur_freq",
    r"/sys/class/devfreq/[^/]*(?:mali|gpu)[^/]*/cur_freq",
)
# What an ioctl on the Hexagon's monitor gives. Source: sysmon_subsystem_stats of the public kernels.
_SYSMON = "/dev/sysmon_subsystem_stats"
_SYSMON_VALUES = (
    ("hvx", "0x80047101", "npu_busy", "%"),
    ("hmx", "0x80047102", "npu_busy", "%"),
    ("q6", "0x80047103", "npu_load", "KCPS"),
)
# The same monitor in debugfs (drivers/soc/qcom/sysmon_subsystem_stats.c). Of its lines only `Average Q6 load
# in KCPS = N` begins with a word of its own; those of HVX and HMX follow a heading with the same first word.
_MASTER = "/sys/kernel/debug/sysmon_subsystem_stats/master_cdsp_stats"
_ONLY_FRAMEWORK = "only the framework's own times of its operators could tell what an NPU did"


def add_gpu(found: Found, sensors: Sensors) -> None:
    """Add the GPU's load in percent and its clock, or why there is none."""
    for path, select in _GPU_BUSY:
        if found.files.get(path) is not None:
            sensors.add("gpu.busy", "gpu", path, select, "gpu_busy", "gpu", "%", 1.0)
            break
    else:
        sensors.lack("gpu_busy", "gpu", _no_load(found))
    denied = None
    for pattern in _GPU_FREQUENCY:
        for match, line in found.below(pattern):
            if line is not None:
                sensors.add("gpu.clock", "gpu", match[0], "first", "gpu_frequency", "gpu", "Hz", 1.0)
                return
            denied = match[0]
    sensors.lack(
        "gpu_frequency", "gpu", f"{denied} cannot be read" if denied else "no clock of a GPU in sysfs"
    )


def _no_load(found: Found) -> str:
    reasons = [f"{path} cannot be read" for path, _ in _GPU_BUSY if path in found.files][:1]
    for pattern, why in _GPU_BUSY_UNREAD:
        reasons += [f"{match[0]} {why}" for match, line in found.below(pattern) if line is not None][:1]
    if found.gpu_work:
        reasons.append(f"`{GPU_WORK}` tells its time by user instead")
    return "; ".join(reasons) or "no load of a GPU under /sys/class/kgsl or mali0"


def add_npu(found: Found, sensors: Sensors, has_npu: bool) -> None:
    """Add the load of the NPU, or why there is none.

    Args:
        found: what the device has.
        sensors: where to add.
        has_npu: whether something else (a thermal zone) shows that there is one.
    """
    if found.files.get(_SYSMON) is not None:
        for name, request, quantity, unit in _SYSMON_VALUES:
            sensors.add(f"npu.{name}", "npu", _SYSMON, f"ioctl:{request}", quantity, "npu", unit, 1.0)
        return
    reasons = [f"{path} cannot be read" for path in (_SYSMON, _MASTER) if path in found.files]
    if found.files.get(f"{_MASTER}#Average") is not None:
        sensors.add("npu.q6", "npu", _MASTER, "line:Average:6", "npu_load", "npu", "KCPS", 1.0)
        reasons = [f"{_MASTER} tells it in lines that no select of the probe takes"]
    for match, line in found.below(r"/sys/kernel/dsp_stats/cdsp/([^/]+)"):
        if line is not None and line.rstrip().endswith("%"):
            sensors.add(f"npu.{match[1]}", "npu", match[0], "first", "npu_busy", "npu", "%", 1.0)
            return
        reasons.append(f"{match[0]} " + ("cannot be read" if line is None else "does not say its unit"))
    if reasons or has_npu:
        reasons.append(_ONLY_FRAMEWORK)
    sensors.lack("npu_busy", "npu", "; ".join(reasons[-4:]) or "no node of an NPU's load is known here")
