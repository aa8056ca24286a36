"""A soak: each cell run after run for a given time, where the experiment asks for one.

results/<experiment>/soak/<device>.json
results/<experiment>/tables/{soak,soak_summary,soak_series}.csv
results/<experiment>/figures/soak.{svg,png}
"""


rule soak:
    """The soak's tables and its figure; by itself it measures nothing else."""
    input:
        soaking.files_for(STUDY.experiment, STUDY.name, STUDY.paths["experiments"], EXPERIMENT),


rule measure_soak:
    """Run a device's cells one after the other, each for the soak's time, unless the raw store has a whole soak."""
    input:
        unpack(block_files),
    output:
        index=f"{EXPERIMENT}/soak/{{device}}.json",
    log:
        f"{LOGS}.measure_soak.{{device}}.log",
    # After the blocks, where both are asked for: a soak leaves the device hot.
    priority: -1
    threads: device_threads
    params:
        block=block,
        soak=soaking.measured(SOAK),
    script:
        "../scripts/measure_soak.py"


rule resoak:
    """Soak anew, whatever the raw store has; `soak` then uses the new runs."""
    input:
        [block_files_of(device).values() for device in DEVICES],
    log:
        f"{LOGS}.resoak.log",
    threads: all_cores
    params:
        blocks={f"{EXPERIMENT}/soak/{device}.json": block_of(device) for device in DEVICES},
        soak=soaking.measured(SOAK),
    script:
        "../scripts/resoak.py"


rule tabulate_soak:
    """A row a run, a row a quantity of the whole, and everything second by second."""
    input:
        indexes=each_device(f"{EXPERIMENT}/soak/{{device}}.json"),
        identities=[identity_path(device) for device in DEVICES],
        cells=f"{EXPERIMENT}/cells.json",
    output:
        runs=f"{EXPERIMENT}/tables/soak.csv",
        summary=f"{EXPERIMENT}/tables/soak_summary.csv",
        series=f"{EXPERIMENT}/tables/soak_series.csv",
    log:
        f"{LOGS}.tabulate_soak.log",
    params:
        raw=RAW,
        soak=SOAK,
        gates=STUDY.analysis["gates"],
        bootstrap=STUDY.analysis["bootstrap"],
        code=code_hash(
            *PARSING,
            *JUDGING,
            "analyse/soak",
            "analyse/stats.py",
            "analyse/figures/series.py",
        ),
    script:
        "../scripts/tabulate_soak.py"


rule draw_soak:
    """Speed, clocks, temperature and power over the time of the soak."""
    input:
        runs=f"{EXPERIMENT}/tables/soak.csv",
        summary=f"{EXPERIMENT}/tables/soak_summary.csv",
        series=f"{EXPERIMENT}/tables/soak_series.csv",
        cells=f"{EXPERIMENT}/cells.json",
    output:
        multiext(f"{EXPERIMENT}/figures/soak", ".svg", ".png"),
    log:
        f"{LOGS}.draw_soak.log",
    params:
        soak=SOAK,
        code=code_hash("analyse/figures", "analyse/soak"),
    script:
        "../scripts/draw_soak.py"
