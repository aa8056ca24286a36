"""The paper's tables and figures in its own layout, this experiment's numbers beside the published ones.

results/<experiment>/tables/paper_table{1,2,3}.{csv,md,tex}
results/<experiment>/figures/paper_figure{1,2,3,4}.{svg,png}
"""


rule render_paper_tables:
    """Tables 1 to 3: metrics, latency breakdown, length of the answers."""
    input:
        paper=paper_values(),
        cells=f"{EXPERIMENT}/cells.json",
        summary=f"{EXPERIMENT}/tables/cells.csv",
        runs=f"{EXPERIMENT}/tables/runs.parquet",
    output:
        multiext(f"{EXPERIMENT}/tables/paper_table1", ".csv", ".md", ".tex"),
        multiext(f"{EXPERIMENT}/tables/paper_table2", ".csv", ".md", ".tex"),
        multiext(f"{EXPERIMENT}/tables/paper_table3", ".csv", ".md", ".tex"),
    log:
        f"results/logs/{STUDY.name}.render_paper_tables.log",
    params:
        experiment=STUDY.name,
        bootstrap=STUDY.analysis["bootstrap"],
        code=code_hash(
            "analyse/paper",
            "analyse/manuscript.py",
            "analyse/stats.py",
            "analyse/figures/labels.py",
            "analyse/figures/reasons.py",
            "analyse/numbers.py",
            "config/paper.py",
        ),
    script:
        "../scripts/render_paper_tables.py"


rule draw_paper_figure:
    """Figures 1 to 3: CPU and GPU over time; figure 4: power and temperature."""
    input:
        paper=paper_values(),
        cells=f"{EXPERIMENT}/cells.json",
        summary=f"{EXPERIMENT}/tables/cells.csv",
        runs=f"{EXPERIMENT}/tables/runs.parquet",
        samples=expand(f"{EXPERIMENT}/records/{{device}}/samples.parquet", device=measured_devices()),
        phases=expand(f"{EXPERIMENT}/records/{{device}}/phases.parquet", device=measured_devices()),
        identities=[block_files_of(device)["identity"] for device in measured_devices()],
    output:
        multiext(f"{EXPERIMENT}/figures/paper_figure{{number}}", ".svg", ".png"),
    log:
        f"results/logs/{STUDY.name}.draw_paper_figure.{{number}}.log",
    wildcard_constraints:
        number="[1-4]",
    params:
        experiment=STUDY.name,
        devices=measured_devices(),
        bootstrap=STUDY.analysis["bootstrap"],
        code=code_hash("analyse/figures", "analyse/paper", "analyse/stats.py", "config/paper.py"),
    script:
        "../scripts/draw_paper_figure.py"
