"""The framework's own benchmark beside an experiment's cells, as an independent check of how fast they are.

results/bundles/bench-<framework>-<version>-<backend>-<target>/
results/<experiment>/bench/<device>.json
results/<experiment>/bench/{agreement,runs}.csv
"""

from pocketvlm.config import benching

BENCH = benching.wanted(STUDY.experiment)


rule check_bench:
    """Whether observed decode rates are the benchmark's, within the experiment's tolerance; by itself it measures nothing else."""
    input:
        table=benching.checked(STUDY, f"{EXPERIMENT}/bench/agreement.csv"),
    log:
        f"{LOGS}.check_bench.log",
    script:
        "../scripts/check_bench.py"


rule build_bench:
    """A framework's own benchmark compiled for a target: a bundle of its own, so that the framework's stays as it is."""
    input:
        source=source_archive,
    output:
        directory("results/bundles/bench-{framework}-{version}-{backend}-{target}"),
    log:
        "results/logs/build_bench.{framework}-{version}-{backend}-{target}.log",
    cache: "omit-software"
    threads: 2
    params:
        source=pinned_source,
        here=source_here,
        recipe=bench_recipe_of,
        backend=backend_of,
        toolchains=toolchain_of,
        required=bench_required_of,
        code=building_code,
    script:
        "../scripts/build_framework.py"


rule measure_bench:
    """Run a device's cells and the benchmark in turn, unless the raw store has enough rounds."""
    input:
        unpack(block_files),
        benchmarks=bench_bundles,
    output:
        index=f"{EXPERIMENT}/bench/{{device}}.json",
    log:
        f"{LOGS}.measure_bench.{{device}}.log",
    threads: device_threads
    params:
        block=block,
        bench=bench_of,
    script:
        "../scripts/measure_bench.py"


rule rebench:
    """Measure every round anew, whatever the raw store has; `check_bench` then uses the new ones."""
    input:
        benching.checked(STUDY, []),
        [[*block_files_of(device).values(), bench_bundles_of(device)] for device in DEVICES],
    log:
        f"{LOGS}.rebench.log",
    threads: all_cores
    params:
        blocks={
            f"{EXPERIMENT}/bench/{device}.json": {
                "block": block_of(device),
                "bench": bench_of_device(device),
            }
            for device in DEVICES
        },
    script:
        "../scripts/rebench.py"


rule tabulate_bench:
    """A row a cell and quantity, and a row a round."""
    input:
        indexes=each_device(f"{EXPERIMENT}/bench/{{device}}.json"),
        identities=[identity_path(device) for device in DEVICES],
        cells=f"{EXPERIMENT}/cells.json",
    output:
        table=f"{EXPERIMENT}/bench/agreement.csv",
        runs=f"{EXPERIMENT}/bench/runs.csv",
    log:
        f"{LOGS}.tabulate_bench.log",
    params:
        raw=RAW,
        bench=BENCH,
        gates=STUDY.analysis["gates"],
        bootstrap=STUDY.analysis["bootstrap"],
        code=code_hash(*PARSING, *JUDGING, "analyse/bench.py", "analyse/stats.py"),
    script:
        "../scripts/tabulate_bench.py"
