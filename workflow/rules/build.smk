"""Bundles: what is pushed, with a manifest of sha256.

results/bundles/<framework>-<version>-<backend>-<target>/
results/bundles/probe-<target>/
"""

# The library code that shapes every bundle.
BUILDING = ["build/bundle.py", "build/toolchains.py"]


rule build_framework:
    """A framework compiled for a target from its pinned source."""
    input:
        source="results/sources/{framework}-{version}.tar.gz",
    output:
        directory("results/bundles/{framework}-{version}-{backend}-{target}"),
    log:
        "results/logs/build_framework.{framework}-{version}-{backend}-{target}.log",
    cache: "omit-software"
    threads: 2
    params:
        source=archive_of,
        recipe=recipe_of,
        backend=backend_of,
        toolchains=toolchain_of,
        code=code_hash("build/framework.py", *BUILDING, "provision/archive.py"),
    script:
        "../scripts/build_framework.py"


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
