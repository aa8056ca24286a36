"""Where llama.cpp computes: what each backend is called in its options and output, and needs to run.

The device is named on the command line, so that a run ends at once where it is not there, instead of
computing on the CPU. That all layers and the vision tower came to it is read off the output (`grammar`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pocketvlm.errors import ConfigError

# More than any model has: all layers, the output layer included.
ALL_LAYERS = 999


@dataclass(frozen=True)
class Backend:
    """A backend that computes elsewhere than on the CPU.

    Attributes:
        device: its first device, as llama.cpp's options and logs name it.
        registry: what `llama-bench` calls the backend.
        environment: variables of its driver; `{threads}` stands for that setting.
    """

    device: str
    registry: str
    environment: Mapping[str, str] = field(default_factory=dict)


BACKENDS: Mapping[str, Backend | None] = {
    "cpu": None,
    # Vulkan through Mesa's lavapipe, which computes on the CPU: the path of a GPU, and no GPU's speed. Loader
    # and driver are those of the bundle. Without a choice of devices ggml leaves out what calls itself a CPU.
    "lavapipe": Backend(
        "Vulkan0",
        "Vulkan",
        {
            "GGML_VK_VISIBLE_DEVICES": "0",
            "LD_LIBRARY_PATH": "@bundle/lib",
            "LP_NUM_THREADS": "{threads}",
            # Pipelines that were compiled once; they take minutes.
            "MESA_SHADER_CACHE_DIR": "@bundle/cache",
            "VK_DRIVER_FILES": "@bundle/share/lavapipe.json",
            # What the loader of Debian 12 and older ones call it.
            "VK_ICD_FILENAMES": "@bundle/share/lavapipe.json",
        },
    ),
    # The phone's own libOpenCL.so.
    "opencl": Backend("GPUOpenCL", "OpenCL", {"LD_LIBRARY_PATH": "/vendor/lib64"}),
    # The code that the DSP loads lies in the bundle.
    "hexagon": Backend("HTP0", "HTP", {"ADSP_LIBRARY_PATH": "@bundle/lib"}),
}


def backend_of(name: str) -> Backend | None:
    """Return a backend, None for the CPU.

    Raises:
        ConfigError: it is not known here how llama.cpp is told to use it.
    """
    if name not in BACKENDS:
        raise ConfigError(
            f"llama.cpp's adapter does not know the backend {name!r}",
            where="backend of a cell",
            do=f"Use one of {', '.join(BACKENDS)}, or add it to frameworks/llamacpp/backend.py",
        )
    return BACKENDS[name]


def arguments(name: str) -> list[str]:
    """Return what tells `llama-mtmd-cli` to compute on a backend; nothing for the CPU."""
    backend = backend_of(name)
    if backend is None:
        return []
    return ["--device", backend.device, "--n-gpu-layers", str(ALL_LAYERS)]


def layers_on(name: str) -> int:
    """Return how many layers are to be on a backend's device: all, or none for the CPU."""
    return 0 if backend_of(name) is None else ALL_LAYERS


def environment(name: str, threads: int) -> dict[str, str]:
    """Return the variables that a backend's driver needs; none for the CPU."""
    backend = backend_of(name)
    variables = {} if backend is None else backend.environment
    return {key: value.replace("{threads}", str(threads)) for key, value in variables.items()}
