"""Pinned sources and synthetic weights.

results/sources/<framework>-<version>.tar.gz
results/weights/<model>/{model,mmproj}-f16.{gguf,json}

What tells two outputs of a rule with `cache:` apart must be among its parameters: the between-workflow cache knows
an output by the rule's code, parameters and inputs, and not by its wildcards.
"""


rule fetch_source:
    """The source archive of a framework's version, through the index that pip is configured with."""
    output:
        ensure("results/sources/{framework}-{version}.tar.gz", sha256=source_sha256),
    log:
        "results/logs/fetch_source.{framework}-{version}.log",
    cache: "omit-software"
    params:
        source=source_of,
    script:
        "../scripts/fetch_source.py"


rule synthesise_weights:
    """Weights with an architecture's shape and random values, the same bytes on every machine."""
    output:
        multiext("results/weights/{model}/{role}-f16", ".gguf", ".json"),
    log:
        "results/logs/synthesise_weights.{model}.{role}.log",
    cache: "omit-software"
    params:
        role="{role}",
        preset=lambda wildcards: STUDY.models[wildcards.model]["preset"],
        sha256=weights_sha256,
        code=code_hash("weights/synthetic.py", "weights/description.py"),
    script:
        "../scripts/synthesise_weights.py"
