"""Bundles: what is pushed, with a manifest of sha256.

results/bundles/<framework>-<version>-<backend>-<target>/
results/bundles/probe-<target>/

`snakemake check_frameworks` says what is there, what is missing and what to do.
"""

# The library code that shapes every bundle.
BUILDING = ["build/bundle.py", "build/toolchains.py"]


rule build_framework:
    """A framework for a target: compiled from its source, or of binaries that a user gives."""
    input:
        source=source_archive,
    output:
        directory("results/bundles/{framework}-{version}-{backend}-{target}"),
    log:
        "results/logs/build_framework.{framework}-{version}-{backend}-{target}.log",
    wildcard_constraints:
        framework=of_source(sources.SDIST, sources.DIRECTORY, sources.PREBUILT),
    cache: "omit-software"
    threads: 2
    params:
        source=pinned_source,
        here=source_here,
        recipe=recipe_of,
        backend=backend_of,
        toolchains=toolchain_of,
        required=required_of,
        code=building_code,
    script:
        "../scripts/build_framework.py"


rule unpack_wheel:
    """A framework's wheel, unpacked, and the program that calls it."""
    input:
        programs=wheel_programs,
    output:
        directory("results/bundles/{framework}-{version}-{backend}-{target}"),
    log:
        "results/logs/unpack_wheel.{framework}-{version}-{backend}-{target}.log",
    wildcard_constraints:
        framework=of_source(sources.WHEEL),
    cache: "omit-software"
    params:
        wheel=pinned_source,
        target="{target}",
        required=required_of,
        code=code_hash("build/wheel.py", "build/bundle.py", "provision/wheel.py", "provision/zipped.py"),
    script:
        "../scripts/unpack_wheel.py"


rule build_probe:
    """The probe compiled for a target."""
    input:
        sources=sorted(str(path) for path in Path("workflow/probe").glob("*.[ch]")),
    output:
        directory("results/bundles/probe-{target}"),
    log:
        "results/logs/build_probe.{target}.log",
    cache: "omit-software"
    params:
        toolchains=toolchain_of,
        code=code_hash("build/program.py", *BUILDING),
    script:
        "../scripts/build_probe.py"


rule check_frameworks:
    """Say of each framework, version and target what is there, what is missing and what to do."""
    log:
        "results/logs/check_frameworks.log",
    params:
        frameworks=STUDY.frameworks,
        models=STUDY.models,
        models_folder=str(STUDY.paths["models"].parent),
        toolchains=STUDY.toolchains,
        targets=sorted({HOST, *(device["target"] for device in STUDY.devices.values())}),
        driver_targets=sorted({d["driver_target"] for d in STUDY.devices.values() if "driver_target" in d}),
    script:
        "../scripts/check_frameworks.py"
