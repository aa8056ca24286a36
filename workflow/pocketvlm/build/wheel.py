"""The bundle of a framework that comes as a Python wheel: nothing is compiled and nothing installed.

lib/    the wheel, unpacked
bin/    the project's own program that calls it, of `workflow/programs/<adapter>`
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pocketvlm.build import bundle
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.errors import ProvisionError
from pocketvlm.provision import wheel

_MINOR = re.compile(r"(?P<kind>cp|py)3(?P<minor>\d{1,3})", re.ASCII)


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
    """Refuse a wheel that the interpreter of this environment, which will run it, cannot load.

    The tags are those of the specification "platform compatibility tags": several Pythons with dots between,
    and `abi3` for whatever is as new as the Python named, or newer.
    """
    pythons, abis = file.removesuffix(".whl").split("-")[-3:-1]
    major, minor = sys.version_info[:2]
    here = f"cp{major}{minor}"
    for python in pythons.split("."):
        newest = _MINOR.fullmatch(python)
        if python in (here, f"py{major}", f"py{major}{minor}"):
            return
        if newest and int(newest["minor"]) <= minor and (newest["kind"] == "py" or "abi3" in abis.split(".")):
            return
    raise ProvisionError(
        f"{file} is for {pythons}, and this environment's Python is {here}",
        where="config/frameworks.yaml",
        do=f"Use an environment of that Python, or pin the wheel for {here}",
    )


def _none(file: str, target: str) -> Toolchain:
    """Return what stands for a toolchain where others compiled: the wheel's tags are all that is known."""
    tags = file.removesuffix(".whl").split("-", 2)[2]
    return Toolchain("wheel", tags, target, "", "", (), (), (), (), (), (), ())
