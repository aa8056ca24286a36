"""The bundle of a framework that comes as a Python wheel: nothing is compiled and nothing installed.

lib/    the wheel, unpacked
bin/    the project's own program that calls it, of `workflow/programs/<adapter>`
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pocketvlm.build import bundle
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.errors import ProvisionError
from pocketvlm.provision import wheel


def build_wheel(
    pin: Mapping[str, str],
    *,
    programs: Sequence[Path],
    target: str,
    destination: Path,
    required: Collection[str] = (),
) -> None:
    """Fetch a wheel and gather its bundle.

    Args:
        pin: the wheel's `file` and `sha256`, with all that the manifest is to say of it.
        programs: files that call it.
        target: what it is made for.
        destination: the bundle's folder; complete with its manifest, or absent.
        required: files that it must have.

    Raises:
        ProvisionError: no index has it, it is for another Python, or it lacks a file.
        IntegrityError: it is not what its pin says, or damaged.
    """
    _check_python(pin["file"])
    with bundle.complete(destination) as made:
        wheel.fetch(pin, made / "lib")
        (made / "bin").mkdir()
        for program in programs:
            shutil.copyfile(program, made / "bin" / program.name)
        if lacking := [name for name in required if not (made / name).is_file()]:
            raise ProvisionError(
                f"{pin['file']} and the programs around it lack {', '.join(lacking)}",
                where="config/frameworks.yaml",
                do="Pin a wheel of a version that the adapter knows",
            )
        bundle.write_manifest(
            made,
            name=destination.name,
            toolchain=_none(pin["file"], target),
            flags={"c": [], "cxx": [], "link": []},
            source=pin,
        )


def _check_python(file: str) -> None:
    """Refuse a wheel that the interpreter of this environment, which will run it, cannot load."""
    python = file.removesuffix(".whl").split("-")[-3]
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    if python != here and not python.startswith("py3"):
        raise ProvisionError(
            f"{file} is for {python}, and this environment's Python is {here}",
            where="config/frameworks.yaml",
            do=f"Use an environment of that Python, or pin the wheel for {here}",
        )


def _none(file: str, target: str) -> Toolchain:
    """Return what stands for a toolchain where others compiled: the wheel's tags are all that is known."""
    tags = file.removesuffix(".whl").split("-", 2)[2]
    return Toolchain("wheel", tags, target, "", "", (), (), (), (), (), (), ())
