"""Metrics with their gates.

results/<experiment>/judged/<device>.parquet
"""

# The library code that decides what is withheld.
JUDGING = [
    *[
        f"analyse/{name}.py"
        for name in ("gates", "bounds", "comparable", "marks", "metrics", "placement", "records", "variation")
    ],
    "frameworks/__init__.py",
    "frameworks/contract.py",
]


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
        code=code_hash(*JUDGING),
    script:
        "../scripts/judge_block.py"
