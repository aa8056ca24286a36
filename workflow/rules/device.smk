"""What each device is, and which sensors are used on it.

results/devices/<device>/identity.json
results/devices/<device>/calibration.json
results/devices/<device>/profile.json
results/devices/<device>/profile.html
results/<experiment>/absent/<device>.json
"""

# The library code that shapes an identity.
IDENTIFYING = [
    f"devices/{name}.py"
    for name in ("identify", "sensors", "found", "accelerators", "battery", "calibrate", "root")
]


rule identify_device:
    """Ask a device what it is, and find out by experiment what its battery's current means."""
    input:
        config=str(STUDY.paths["devices"] / "{device}.yaml"),
    output:
        identity="results/devices/{device}/identity.json",
        calibration="results/devices/{device}/calibration.json",
    log:
        "results/logs/identify_device.{device}.log",
    threads: device_threads
    params:
        device=device_config,
        code=code_hash(*IDENTIFYING),
    script:
        "../scripts/identify_device.py"


rule inspect_device:
    """Look at a device closely: what it is, and what each sensor really tells, and how often."""
    input:
        identity="results/devices/{device}/identity.json",
        calibration="results/devices/{device}/calibration.json",
        probe=probe_of,
        templates=[
            "workflow/report/profile.html.j2",
            *sorted(map(str, Path("workflow/report/css").glob("*"))),
        ],
    output:
        profile="results/devices/{device}/profile.json",
        page="results/devices/{device}/profile.html",
    log:
        "results/logs/inspect_device.{device}.log",
    threads: device_threads
    params:
        device=device_config,
        code=code_hash("inspection", "analyse/pages.py"),
    script:
        "../scripts/inspect_device.py"


rule inspect:
    """What each device of the experiment is and can tell; with `--config device=<id>` that one."""
    input:
        expand("results/devices/{device}/profile.html", device=INSPECTED),


rule note_absent_device:
    """What stands in the place of the identity of a device that could not be asked what it is."""
    output:
        record=f"{EXPERIMENT}/absent/{{device}}.json",
    log:
        f"results/logs/{STUDY.name}.note_absent_device.{{device}}.log",
    params:
        device=device_config,
        reason=absent_reason,
        code=code_hash("measure/absence.py"),
    script:
        "../scripts/note_absent_device.py"


rule clean_device:
    """Remove everything of pocketvlm from the experiment's devices; the results here stay."""
    log:
        f"results/logs/{STUDY.name}.clean_device.log",
    threads: all_cores
    params:
        devices=[STUDY.devices[device] for device in ([config["device"]] if "device" in config else DEVICES)],
    script:
        "../scripts/clean_device.py"
