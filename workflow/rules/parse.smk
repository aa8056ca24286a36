"""Raw runs to records: phases, samples, metrics, answers.

results/<experiment>/records/<device>/*.parquet
"""

# The library code that shapes the records.
PARSING = [
    "frameworks",
    "apps",
    *[f"analyse/{name}.py" for name in ("parse", "raw", "phases", "energy", "metrics", "sensors", "records")],
    *[f"analyse/{name}.py" for name in ("app", "interaction")],
    "analyse/plausible.py",
    "analyse/comparable.py",
    *[f"analyse/{name}.py" for name in ("frames", "gpuwork", "placement", "responsiveness", "numbers")],
    "cpulist.py",
    *[f"analyse/{name}.py" for name in ("clocks", "marks", "offload", "sanity")],
]


rule parse_block:
    """The runs of a block as tables, one row a phase, a sample, a metric."""
    input:
        index=f"{EXPERIMENT}/blocks/{{device}}.json",
        identity=identity,
        cells=f"{EXPERIMENT}/cells.json",
    output:
        phases=f"{EXPERIMENT}/records/{{device}}/phases.parquet",
        samples=f"{EXPERIMENT}/records/{{device}}/samples.parquet",
        metrics=f"{EXPERIMENT}/records/{{device}}/metrics.parquet",
        answers=f"{EXPERIMENT}/records/{{device}}/answers.parquet",
    log:
        f"{LOGS}.parse_block.{{device}}.log",
    params:
        raw=RAW,
        code=code_hash(*PARSING),
    script:
        "../scripts/parse_block.py"
