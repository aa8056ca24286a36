"""What a device can do at most: measured on this machine, quoted for phones.

results/bundles/peaks-<target>/
results/devices/<device>/peaks.json
"""


rule build_peaks:
    """The benchmark of memory bandwidth and operations compiled for a target, with the flags of its bundles."""
    input:
        sources=sorted(str(path) for path in Path("workflow/peaks").glob("*.[ch]")),
    output:
        directory("results/bundles/peaks-{target}"),
    log:
        "results/logs/build_peaks.{target}.log",
    cache: "omit-software"
    params:
        toolchains=toolchain_of,
        code=code_hash("build/program.py", *BUILDING),
    script:
        "../scripts/build_peaks.py"


rule measure_peaks:
    """Memory bandwidth and operations a second of a device."""
    input:
        unpack(peak_files),
    output:
        peaks="results/devices/{device}/peaks.json",
    log:
        "results/logs/measure_peaks.{device}.log",
    threads: device_threads
    params:
        device=device_config,
        papers=str(STUDY.paths["papers"]),
        code=code_hash("peaks/measure.py"),
    script:
        "../scripts/measure_peaks.py"
