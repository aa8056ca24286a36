"""What each device is, and which sensors are used on it.

results/devices/<device>/identity.json
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
