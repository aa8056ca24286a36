"""The blocks: the only stage that runs a workload. Runs go to results/raw, which no rule declares.

results/<experiment>/cells.json
results/<experiment>/blocks/<device>.json
"""


rule resolve_experiment:
    """The experiment as plain values: every cell with what it is made of."""
    output:
        cells=f"{EXPERIMENT}/cells.json",
    log:
        f"results/logs/{STUDY.name}.resolve_experiment.log",
    params:
        records=STUDY.records(),
    script:
        "../scripts/resolve_experiment.py"


rule measure_block:
    """Measure on one device the runs that the raw store lacks, and list those that belong to the experiment."""
    input:
        unpack(block_files),
    output:
        index=f"{EXPERIMENT}/blocks/{{device}}.json",
    log:
        f"results/logs/{STUDY.name}.measure_block.{{device}}.log",
    threads: device_threads
    params:
        block=block,
    script:
        "../scripts/measure_block.py"


rule remeasure:
    """Measure every run of the experiment anew, whatever the raw store has; `all` then uses the new runs."""
    input:
        [block_files_of(device).values() for device in DEVICES],
    log:
        f"results/logs/{STUDY.name}.remeasure.log",
    threads: all_cores
    params:
        blocks={f"{EXPERIMENT}/blocks/{device}.json": block_of(device) for device in DEVICES},
    script:
        "../scripts/remeasure.py"
