"""The tables of an experiment.

results/<experiment>/tables/runs.parquet
results/<experiment>/tables/cells.csv
"""


rule aggregate_tables:
    """Every run, and every cell with its statistics."""
    input:
        judged=each_device(f"{EXPERIMENT}/judged/{{device}}.parquet"),
        indexes=each_device(f"{EXPERIMENT}/blocks/{{device}}.json"),
        cells=f"{EXPERIMENT}/cells.json",
    output:
        runs=f"{EXPERIMENT}/tables/runs.parquet",
        cells=f"{EXPERIMENT}/tables/cells.csv",
    log:
        f"{LOGS}.aggregate_tables.log",
    params:
        bootstrap=STUDY.analysis["bootstrap"],
        code=code_hash("analyse/tables.py", "analyse/stats.py", "analyse/records.py"),
    script:
        "../scripts/aggregate_tables.py"
