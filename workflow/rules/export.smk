"""What others' programs read: tables for a manuscript, traces for Perfetto.

results/<experiment>/tables/cells.{md,tex}
results/<experiment>/traces/<device>/<cell>.<nn>.json.gz
"""


rule export_tables:
    """The headline numbers of every cell as Markdown and as LaTeX."""
    input:
        summary=f"{EXPERIMENT}/tables/cells.csv",
        cells=f"{EXPERIMENT}/cells.json",
        origin=origin_files(),
    output:
        multiext(f"{EXPERIMENT}/tables/cells", ".md", ".tex"),
    log:
        f"{LOGS}.export_tables.log",
    params:
        confidence=STUDY.analysis["bootstrap"]["confidence"],
        code=code_hash(
            "analyse/headline.py",
            "analyse/manuscript.py",
            "analyse/numbers.py",
            "analyse/figures/labels.py",
        ),
    script:
        "../scripts/export_tables.py"


rule write_traces:
    """Each measured run of a device as a trace: phases, counters and output over time."""
    input:
        index=f"{EXPERIMENT}/blocks/{{device}}.json",
        phases=f"{EXPERIMENT}/records/{{device}}/phases.parquet",
        samples=f"{EXPERIMENT}/records/{{device}}/samples.parquet",
        cells=f"{EXPERIMENT}/cells.json",
        origin=origin_files(),
    output:
        traces=directory(f"{EXPERIMENT}/traces/{{device}}"),
    log:
        f"{LOGS}.write_traces.{{device}}.log",
    params:
        raw=RAW,
        code=code_hash(
            "analyse/trace.py",
            "analyse/raw.py",
            "analyse/sensors.py",
            "analyse/numbers.py",
            "analyse/figures/series.py",
            "analyse/figures/labels.py",
        ),
    script:
        "../scripts/write_traces.py"
