"""Metrics with their gates.

results/<experiment>/judged/<device>.parquet
"""


rule judge_block:
    """Which numbers are withheld from the tables, and why."""
    input:
        metrics=f"{EXPERIMENT}/records/{{device}}/metrics.parquet",
        index=f"{EXPERIMENT}/blocks/{{device}}.json",
        bounds=f"{EXPERIMENT}/bounds/{{device}}.csv",
    output:
        judged=f"{EXPERIMENT}/judged/{{device}}.parquet",
    log:
        f"{LOGS}.judge_block.{{device}}.log",
    params:
        gates=STUDY.analysis["gates"],
        code=code_hash(
            "analyse/gates.py",
            "analyse/bounds.py",
            "analyse/metrics.py",
            "analyse/records.py",
            "frameworks/__init__.py",
        ),
    script:
        "../scripts/judge_block.py"
