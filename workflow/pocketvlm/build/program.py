"""The project's own C programs (the probe, the benchmark of peaks) compiled for a target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pocketvlm.build import bundle
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.provenance import sha256_file, sha256_json

FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")


def build_program(
    program: str, *, sources: Sequence[Path], toolchain: Toolchain, destination: Path, build_log: Path
) -> None:
    """Compile a program and write its bundle.

    Args:
        program: its name; the bundle holds it as `bin/<program>`.
        sources: its .c and .h files.
        toolchain: what compiles for the target.
        destination: the bundle's folder; complete with its manifest, or absent.
        build_log: where the compiler's output goes.

    Raises:
        ProvisionError: it does not compile.
    """
    # By name: the order of the objects is part of the bytes.
    ordered = sorted(sources, key=lambda path: path.name)
    with bundle.workplace(destination) as root, bundle.complete(destination) as made:
        for path in ordered:
            (root / path.name).write_bytes(path.read_bytes())
        (made / "bin").mkdir()
        compiled = made / "bin" / program
        command = [
            *toolchain.cc,
            *FLAGS,
            *toolchain.c_flags,
            f"-ffile-prefix-map={root}=.",
            *(path.name for path in ordered if path.suffix == ".c"),
            *("-o", str(compiled.absolute()), *toolchain.link_flags, "-lpthread"),
        ]
        build_log.unlink(missing_ok=True)
        env = bundle.environment(toolchain, root)
        bundle.run(command, log=build_log, env=env, cwd=root, what=f"compiling {program}")
        compiled.chmod(0o755)
        bundle.write_manifest(
            made,
            name=destination.name,
            toolchain=toolchain,
            flags={
                "c": [*FLAGS, *toolchain.c_flags],
                "cxx": [],
                "link": [*toolchain.link_flags, "-lpthread"],
                "cmake": {},
            },
            source={
                "project": f"pocketvlm-{program}",
                "sha256": sha256_json({path.name: sha256_file(path) for path in ordered}),
            },
        )
