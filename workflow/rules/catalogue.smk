"""What the rules that fetch and build ask of the tables of frameworks, toolchains and models."""


def source_of(wildcards):
    """Where a framework's version comes from; of a source archive there is one for all targets."""
    target = wildcards.get("target", HOST)
    with stage.plain_errors():
        return sources.source_of(STUDY.frameworks, wildcards.framework, wildcards.version, target)


def pinned_source(wildcards):
    """What is fetched, or what the manifest of a bundle says that it was made of."""
    with stage.plain_errors():
        return sources.pinned(source_of(wildcards), wildcards.get("target", HOST))


def source_archive(wildcards):
    """The archive that a framework is built from; none where it is not fetched."""
    fetched = source_of(wildcards)["kind"] == sources.SDIST
    return f"results/sources/{wildcards.framework}-{wildcards.version}.tar.gz" if fetched else []


def source_here(wildcards):
    """Where a source tree or binaries lie, and what a source tree holds now; both None for what is fetched."""
    source = source_of(wildcards)
    with stage.plain_errors():
        path, tree = sources.origin(source, wildcards.target), sources.tree(source, wildcards.target)
    return {"path": path and str(path), "tree": tree}


def app_of(wildcards):
    """How a framework's version is driven through its app."""
    return STUDY.frameworks[wildcards.framework]["versions"][wildcards.version]["app"]


def app_bundles():
    """A pattern of frameworks, each only before a version of it that is an app."""
    patterns = [
        f"{re.escape(name)}(?=-{re.escape(version)}-)"
        for name, entry in STUDY.frameworks.items()
        for version, about in entry["versions"].items()
        if "app" in about
    ]
    return "|".join(patterns) or "(?!)"


def recipe_of(wildcards):
    return sources.recipe_of(STUDY.frameworks[wildcards.framework], wildcards.version)


def building_code(wildcards):
    return sources.building_code(source_of(wildcards))


def required_of(wildcards):
    """The files that a framework's bundle must have."""
    return frameworks.command(STUDY.frameworks[wildcards.framework]["adapter"]).REQUIRED


def backend_of(wildcards):
    """A backend's entry, with the toolchain of this machine where its build makes programs that it runs."""
    entry = STUDY.frameworks[wildcards.framework]["backends"][wildcards.backend]
    if not entry.get("requires", {}).get("host"):
        return entry
    return {**entry, "host": {"target": HOST, "toolchains": toolchains_for(HOST)}}


def toolchains_for(wanted):
    """The part of the table of toolchains that compiles for a target; the rest is no input of its builds."""
    return {
        name: {**entry, "targets": {target: entry["targets"][target]}}
        for name, entry in STUDY.toolchains.items()
        for target in entry["targets"]
        if target == wanted
    }


def toolchain_of(wildcards):
    return toolchains_for(wildcards.target)


def source_sha256(wildcards):
    return pinned_source(wildcards)["sha256"]


def weights_sha256(wildcards):
    return STUDY.models[wildcards.model]["sha256"][wildcards.role]


def shape_sha256(wildcards):
    return shapes.pinned(STUDY.models[wildcards.model], wildcards.part)


def given_weights(wildcards):
    """Where weights in another format than GGUF are, and their sha256, as the table of models gives them."""
    entry = STUDY.models[wildcards.model]
    given = formats.given(entry, wildcards.weights_format, wildcards.quantisation)[wildcards.given_role]
    return {**given, "path": str(formats.located(given["path"], STUDY.paths["models"].parent))}


def pin_of(wildcards):
    """What the lock says of a file of a hub model, or why it says nothing."""
    return hub.pin(wildcards.model, STUDY.models[wildcards.model], LOCK, wildcards.part)


def bundle_path(framework, version, backend, target):
    return f"{ROOT}/bundles/{framework}-{version}-{backend}-{target}"


def quantiser_bundle(wildcards):
    """The host's build of the framework that quantises a model: the pinned source that runs it."""
    quantiser = STUDY.models[wildcards.model]["quantiser"]
    return bundle_path(quantiser["framework"], quantiser["version"], "cpu", HOST)


def wheel_programs(wildcards):
    """The project's own programs around a framework that is a library."""
    adapter = STUDY.frameworks[wildcards.framework]["adapter"]
    return sorted(map(str, Path("workflow/programs", adapter).glob("*.py")))


def converter_bundle(wildcards):
    """The host's bundle of the framework whose tool converts a model to its format."""
    made = STUDY.models[wildcards.model]["formats"]["mnn"]["converted"]
    return bundle_path(made["framework"], made["version"], "cpu", HOST)
