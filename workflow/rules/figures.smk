"""The figures of an experiment, each as SVG and PNG.

results/<experiment>/figures/{phases,throughput,energy}.{svg,png}
results/<experiment>/figures/timeline-<cell>.{svg,png}
"""


rule draw_timeline:
    """Utilisation, temperature and power over time of one cell, phases shaded."""
    input:
        unpack(cell_files),
        runs=f"{EXPERIMENT}/tables/runs.parquet",
        summary=f"{EXPERIMENT}/tables/cells.csv",
        cells=f"{EXPERIMENT}/cells.json",
    output:
        multiext(f"{EXPERIMENT}/figures/timeline-{{cell}}", ".svg", ".png"),
    log:
        f"{LOGS}.draw_timeline.{{cell}}.log",
    params:
        code=code_hash("analyse/figures"),
    script:
        "../scripts/draw_timeline.py"


rule draw_summary:
    """The cells side by side: phases, tokens per second, energy and temperature."""
    input:
        runs=f"{EXPERIMENT}/tables/runs.parquet",
        summary=f"{EXPERIMENT}/tables/cells.csv",
        cells=f"{EXPERIMENT}/cells.json",
    output:
        multiext(f"{EXPERIMENT}/figures/{{figure}}", ".svg", ".png"),
    log:
        f"{LOGS}.draw_summary.{{figure}}.log",
    wildcard_constraints:
        figure="phases|throughput|energy",
    params:
        code=code_hash("analyse/figures"),
    script:
        "../scripts/draw_summary.py"
