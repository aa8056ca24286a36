"""The benchmark of peaks compiled for a target, with the instructions of the bundles that it bounds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pocketvlm.build import bundle
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.provenance import sha256_file, sha256_json

PROGRAM = "bin/peaks"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")


def build_peaks(*, sources: Sequence[Path], toolchain: Toolchain, destination: Path, build_log: Path) -> None:
    """Compile the benchmark and write its bundle.

    Args:
        sources: its .c and .h files.
        toolchain: what compiles for the target.
        destination: the bundle's folder; complete with its manifest, or absent.
        build_log: where the compiler's output goes.

    Raises:
        ProvisionError: it does not compile.
    """
    ordered = sorted(sources, key=lambda path: path.name)
    link = [*toolchain.link_flags, "-lpthread"]
    destination.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=destination.parent, prefix=".build-") as folder,
        bundle.complete(destination) as made,
    ):
        root = Path(folder).absolute()
        for path in ordered:
            (root / path.name).write_bytes(path.read_bytes())
        program = made / PROGRAM
        program.parent.mkdir()
        build_log.unlink(missing_ok=True)
        bundle.run(
            [
                *toolchain.cc,
                *FLAGS,
                *toolchain.c_flags,
                f"-ffile-prefix-map={root}=.",
                *(path.name for path in ordered if path.suffix == ".c"),
                *("-o", str(program.absolute()), *link),
            ],
            log=build_log,
            env=bundle.environment(toolchain, root),
            cwd=root,
            what="compiling the benchmark of peaks",
        )
        program.chmod(0o755)
        bundle.write_manifest(
            made,
            name=destination.name,
            toolchain=toolchain,
            flags={"c": [*FLAGS, *toolchain.c_flags], "cxx": [], "link": link, "cmake": {}},
            source={
                "project": "pocketvlm-peaks",
                "sha256": sha256_json({path.name: sha256_file(path) for path in ordered}),
            },
        )
