"""Pinned sources, synthetic weights, and the weights of the Hugging Face hub.

results/sources/<framework>-<version>.tar.gz
results/weights/<model>/{model,mmproj}-f16.{gguf,json}
results/weights/<model>/model-<quantisation>.{gguf,json}, as the hub has it or as a shape is written
results/weights/<model>/<format>-<quantisation>/<role>/ and <role>.json, in another framework's format
config/models.lock.yaml, by `snakemake lock_models`

What tells two outputs of a rule with `cache:` apart must be among its parameters: the between-workflow cache knows
an output by the rule's code, parameters and inputs, and not by its wildcards.
"""

# What shapes every weights file that is written here.
WRITING = [
    f"weights/{module}.py" for module in ("blocks", "container", "scaling", "vocabulary", "description")
]


rule fetch_source:
    """The source archive of a framework's version, through the index that pip is configured with."""
    output:
        ensure("results/sources/{framework}-{version}.tar.gz", sha256=source_sha256),
    log:
        "results/logs/fetch_source.{framework}-{version}.log",
    cache: "omit-software"
    params:
        source=pinned_source,
    script:
        "../scripts/fetch_source.py"


rule synthesise_weights:
    """Weights with an architecture's shape and random values, the same bytes on every machine."""
    output:
        multiext("results/weights/{model}/{role}-f16", ".gguf", ".json"),
    log:
        "results/logs/synthesise_weights.{model}.{role}.log",
    wildcard_constraints:
        model=one_of(PRESETS),
    cache: "omit-software"
    params:
        role="{role}",
        preset=lambda wildcards: STUDY.models[wildcards.model]["preset"],
        sha256=weights_sha256,
        code=code_hash("weights/synthetic.py", *WRITING),
    script:
        "../scripts/synthesise_weights.py"


rule synthesise_shape:
    """One file with a published model's exact shape and random values, written as it is quantised."""
    output:
        multiext("results/weights/{model}/{part}", ".gguf", ".json"),
    log:
        "results/logs/synthesise_shape.{model}.{part}.log",
    wildcard_constraints:
        model=having({model: shapes.parts(entry) for model, entry in SHAPES.items()}),
        part="(model|mmproj)-[A-Za-z0-9_]+",
    cache: "omit-software"
    params:
        part="{part}",
        shape=lambda wildcards: STUDY.models[wildcards.model]["shape"],
        name="{model}",
        sha256=shape_sha256,
        code=code_hash("weights/shapes", "weights/quantise.py", *WRITING),
    script:
        "../scripts/synthesise_shape.py"


rule lock_models:
    """Ask the hub for revision, size and sha256 of its models, and write them into the lock beside the table."""
    log:
        "results/logs/lock_models.log",
    params:
        models=HUB,
        names=[name.strip() for name in config.get("models", "").split(",") if name.strip()],
        lock=str(LOCK_FILE),
    script:
        "../scripts/lock_models.py"


rule fetch_weights:
    """One file of a model of the hub: the bytes that the lock pins."""
    output:
        multiext("results/weights/{model}/{part}", ".gguf", ".json"),
    log:
        "results/logs/fetch_weights.{model}.{part}.log",
    wildcard_constraints:
        model=having({model: hub.fetched(entry) for model, entry in HUB.items()}),
        part="(model|mmproj)-[A-Za-z0-9_]+",
    cache: "omit-software"
    params:
        pin=pin_of,
        code=code_hash("weights/description.py"),
    script:
        "../scripts/fetch_weights.py"


rule take_weights:
    """Weights that a user gives in another framework's format, checked against their sha256."""
    output:
        weights=directory("results/weights/{model}/{weights_format}-{quantisation}/{given_role}"),
        record="results/weights/{model}/{weights_format}-{quantisation}/{given_role}.json",
    log:
        "results/logs/take_weights.{model}.{weights_format}-{quantisation}.{given_role}.log",
    wildcard_constraints:
        weights_format="[a-z]+",
        given_role="[a-z][a-z0-9_]*",
    params:
        given=given_weights,
        code=code_hash("weights/formats.py", "provision/tree.py"),
    script:
        "../scripts/take_weights.py"
