"""What a program or library says of itself: the processor it is for, and the libraries that it needs.

Source: the ELF specification (System V ABI, "Object Files" and "Program Loading and Dynamic Linking"). Files
are untrusted: every offset is checked, and only as much is read as a header says.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pocketvlm.errors import IntegrityError

# e_machine by the first part of a target (ELF specification, "ELF header").
MACHINES = {"x86_64": 62, "aarch64": 183, "armv7a": 40, "arm": 40, "i686": 3, "riscv64": 243}
# Qualcomm's DSP of an Android phone (EM_QDSP6), which loads libraries of a system of its own from the bundle.
_HEXAGON = 164
_NAMES = {**{number: name for name, number in reversed(MACHINES.items())}, _HEXAGON: "hexagon"}
_MAGIC = b"\x7fELF"
_LOAD, _DYNAMIC, _NEEDED, _STRINGS, _SIZE = 1, 2, 1, 5, 10
_MOST_HEADERS, _MOST_ENTRIES, _LONGEST = 512, 4096, 4096

# What a target brings itself, by the last part of its name, without version numbers. Android: the public
# libraries of the NDK, and those of the processor's vendor that programs open by name (OpenCL, FastRPC).
_ANDROID = (
    "libc libm libdl liblog libandroid libz libEGL libGLESv1_CM libGLESv2 libGLESv3 libvulkan libOpenSLES "
    "libaaudio libamidi libbinder_ndk libcamera2ndk libicu libjnigraphics libmediandk libnativewindow "
    "libneuralnetworks libstdc++ libsync ld-android libOpenCL libcdsprpc libadsprpc"
)
# Linux: the C library whichever it is, what a compiler's runtime is, and the loaders of graphics drivers.
_LINUX = (
    "libc libm libdl librt libpthread libresolv libutil libgcc_s libstdc++ libatomic ld-linux-x86-64 "
    "ld-linux-aarch64 ld-linux-armhf ld-musl-x86_64 ld-musl-aarch64 libc.musl-x86_64 libc.musl-aarch64 "
    "linux-vdso libvulkan libOpenCL"
)
OF_THE_TARGET = {
    "android": frozenset(_ANDROID.split()),
    "gnu": frozenset(_LINUX.split()),
    "musl": frozenset(_LINUX.split()),
}


@dataclass(frozen=True)
class Elf:
    """An ELF file: `machine` as the specification numbers it, `needed` the libraries that it asks for."""

    machine: int
    needed: tuple[str, ...]

    @property
    def processor(self) -> str:
        """The machine by name, or its number."""
        return _NAMES.get(self.machine, f"machine {self.machine}")


def read(path: Path) -> Elf | None:
    """Return what an ELF file says of itself; None for a file of another kind.

    Raises:
        IntegrityError: it begins as one and is damaged.
    """
    with path.open("rb") as stream:
        head = stream.read(64)
        if not head.startswith(_MAGIC):
            return None
        try:
            return _parsed(stream, head)
        except (struct.error, ValueError, IndexError, OverflowError) as error:
            raise IntegrityError(
                f"{path.name} is a damaged program: {error}", where=str(path), do="Get or build it again"
            ) from None


def _parsed(stream: BinaryIO, head: bytes) -> Elf:
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    if head[4] not in (1, 2) or head[5] not in (1, 2):
        raise ValueError("its header is of no known class")
    machine = struct.unpack_from(f"{order}H", head, 18)[0]
    offset = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    if count > _MOST_HEADERS or size < (56 if wide else 32):
        raise ValueError("its program headers are none") if count else ValueError("it has no program")
    segments: list[tuple[int, int, int, int]] = []
    for number in range(count):
        data = _at(stream, offset + number * size, 56 if wide else 32)
        if wide:
            kind, _, place, address, _, length = struct.unpack_from(f"{order}IIQQQQ", data)
        else:
            kind, place, address, _, length = struct.unpack_from(f"{order}IIIII", data)
        segments.append((kind, place, address, length))
    return Elf(machine, tuple(_needed(stream, segments, order, wide=wide)))


def _at(stream: BinaryIO, offset: int, length: int) -> bytes:
    if offset >= 1 << 40:  # far beyond what a program can hold, and what some file systems let one seek to
        raise ValueError("an offset is beyond its end")
    stream.seek(offset)
    data = stream.read(length)
    if len(data) != length:
        raise ValueError("it is cut short")
    return data


def _needed(
    stream: BinaryIO, segments: list[tuple[int, int, int, int]], order: str, *, wide: bool
) -> Iterator[str]:
    dynamic = next(((place, length) for kind, place, _, length in segments if kind == _DYNAMIC), None)
    if dynamic is None:
        return
    entry = struct.Struct(f"{order}{'qQ' if wide else 'iI'}")
    data = _at(stream, dynamic[0], min(dynamic[1], _MOST_ENTRIES * entry.size))
    found: list[tuple[int, int]] = []
    for tag, value in entry.iter_unpack(data[: len(data) // entry.size * entry.size]):
        if tag == 0:
            break
        found.append((tag, value))
    address = next((value for tag, value in found if tag == _STRINGS), None)
    length = next((value for tag, value in found if tag == _SIZE), 0)
    if address is None:
        return
    for kind, place, start, size in segments:
        if kind == _LOAD and start <= address < start + size:
            strings = place + address - start
            break
    else:
        raise ValueError("its table of strings is in no segment")
    for tag, value in found:
        if tag == _NEEDED:
            if value >= length:
                raise ValueError("the name of a library is outside its table")
            _at(stream, strings + value, 1)
            stream.seek(strings + value)
            name, end, _ = stream.read(_LONGEST).partition(b"\0")
            if not end:
                raise ValueError("the name of a library has no end")
            yield name.decode(errors="replace")


def closure(
    name: str, folders: Sequence[Path], *, without: Collection[str] = ()
) -> tuple[dict[str, Path], list[str]]:
    """Return a library with all that it asks for, and the names that are in none of the folders.

    Args:
        name: the library's file name.
        folders: where to look, the first first; links count as what they lead to.
        without: names that are left out, with what only they ask for: those of the system itself.

    Returns:
        the files by the name under which they are asked for, and what was not found.

    Raises:
        IntegrityError: a file is damaged.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    waiting = [name]
    while waiting:
        wanted = waiting.pop(0)
        if wanted in found or wanted in missing or wanted in without:
            continue
        path = next((folder / wanted for folder in folders if (folder / wanted).is_file()), None)
        if path is None:
            missing.append(wanted)
            continue
        found[wanted] = path
        about = read(path)
        waiting += about.needed if about else ()
    return found, missing


def check_bundle(
    folder: Path, *, target: str, required: Collection[str] = (), libraries: Collection[str] = ()
) -> None:
    """Raise unless a bundle's programs and libraries are of its target, and find what they need.

    A bundle for Android may hold libraries of its Hexagon DSP besides.

    Args:
        folder: the bundle.
        target: what it is for.
        required: files that it must have; those in `bin` are programs (or scripts, which begin with `#!`).
        libraries: names of libraries that the target has besides its own, such as `libfoo.so`.

    Raises:
        IntegrityError: a file is missing, is no program, or is of another processor; a library is missing.
    """
    missing = [name for name in required if not (folder / name).is_file()]
    if missing:
        held = ", ".join(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
        raise _unfit(
            f"there is no {', '.join(missing)}, which its adapter runs; there is {held[:300] or 'nothing'}",
            folder,
            "Put it there, or name with `build: {collect: {<bundle's file>: <file given>}}` which file it is",
        )
    machine = MACHINES.get(target.partition("-")[0])
    own = {_plain(name) for name in libraries} | OF_THE_TARGET.get(target.rpartition("-")[2], frozenset())
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    beside = {path.name for path in files}
    for path in files:
        name = path.relative_to(folder).as_posix()
        elf = read(path)
        if elf is None:
            with path.open("rb") as stream:
                script = stream.read(2) == b"#!"
            if name in required and name.startswith("bin/") and not script:
                raise _unfit(
                    f"{name} is no ELF program", folder, f"Give a program that was built for {target}"
                )
            continue
        if elf.machine == _HEXAGON and target.endswith("-android") and not name.startswith("bin/"):
            continue  # what it needs is the DSP's own, of which nothing is known here
        if machine is not None and elf.machine != machine:
            raise _unfit(
                f"{name} is for {elf.processor} and the target is {target}",
                folder,
                f"Give what was built for {target}, or correct the target of these binaries",
            )
        lacking = [need for need in elf.needed if need not in beside and _plain(need) not in own]
        if lacking:
            raise _unfit(
                f"{name} needs {', '.join(lacking)}, which is neither beside it nor the target's own",
                folder,
                "Put it into the bundle's lib, or name it in `requires: {libraries: […]}` of the backend "
                "if the device has it",
            )


def _plain(library: str) -> str:
    return library.partition(".so")[0]


def _unfit(what: str, folder: Path, do: str) -> IntegrityError:
    return IntegrityError(f"the bundle {folder.name.lstrip('.')} cannot be used: {what}", do=do)
