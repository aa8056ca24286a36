"""What each device is, and which sensors are used on it.

results/devices/<device>/identity.json
results/<experiment>/absent/<device>.json
"""


rule identify_device:
    """Ask a device what it is."""
    input:
        config=str(STUDY.paths["devices"] / "{device}.yaml"),
    output:
        identity="results/devices/{device}/identity.json",
    log:
        "results/logs/identify_device.{device}.log",
    params:
        device=device_config,
        code=code_hash("devices/identify.py", "devices/sensors.py"),
    script:
        "../scripts/identify_device.py"


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
