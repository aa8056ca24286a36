"""The bundle of a framework that comes as a Python wheel: nothing is compiled and nothing installed.

lib/    the wheel, unpacked
bin/    the project's own program that calls it, of the adapter's folder `program`
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketvlm.build import bundle
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.provision import wheel


def build_wheel(pin: Mapping[str, str], *, programs: Sequence[Path], target: str, destination: Path) -> None:
    """Fetch a wheel and gather its bundle.

    Args:
        pin: the wheel's `file` and `sha256`.
        programs: files that call it.
        target: what it is made for.
        destination: the bundle's folder; complete with its manifest, or absent.

    Raises:
        ProvisionError: no index has it.
        IntegrityError: it is not what its pin says, or damaged.
    """
    with bundle.complete(destination) as made:
        wheel.fetch(pin, made / "lib")
        (made / "bin").mkdir()
        for program in programs:
            shutil.copyfile(program, made / "bin" / program.name)
        bundle.write_manifest(
            made,
            name=destination.name,
            toolchain=_none(pin["file"], target),
            flags={"c": [], "cxx": [], "link": [], "cmake": {}},
            source=pin,
        )


def _none(file: str, target: str) -> Toolchain:
    """Return what stands for a toolchain where others compiled: the wheel's tags are all that is known."""
    tags = file.removesuffix(".whl").split("-", 2)[2]
    return Toolchain("wheel", tags, target, "", "", (), (), (), (), (), (), ())
