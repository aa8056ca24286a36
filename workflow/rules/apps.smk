"""Frameworks that are driven through their Android app: nothing is built for them.

results/bundles/<framework>-<version>-<backend>-<target>/
"""


rule bundle_app:
    """The app of a framework's version, as it was given, with a manifest like every bundle's."""
    output:
        directory("results/bundles/{framework}-{version}-{backend}-{target}"),
    log:
        "results/logs/bundle_app.{framework}-{version}-{backend}-{target}.log",
    wildcard_constraints:
        framework=app_bundles(),
    params:
        app=app_of,
        code=code_hash("build/app.py"),
    script:
        "../scripts/bundle_app.py"
