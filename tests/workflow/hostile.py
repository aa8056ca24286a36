"""A study whose every name, text and output wants to be a command, for tests of the whole path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pocketvlm.build.toolchains import host_target
from pocketvlm.provenance import sha256_file, write_json
from tests.experiments import cell_text, experiment_text

from .conftest import Project, checkout

# What a shell, a page, a terminal or a table would act on. A file named canary says that a shell did.
SHELL = "$(touch canary)`touch canary`;touch canary&'\"\\ *~ -x"
NAME = "a b'c\"$(touch canary)`touch canary`;&*[x]\\ü\u202e -"
PROMPT = (
    f"--help {SHELL}\n| touch canary > canary\n\t#{{}}%s \u202e\u05d0"
    "<script>alert(1)</script>&amp; $HOME ${PATH}"
)
# As odd as an image may be named.
IMAGE = "0.--help-x..png"

# The fields of the answer that the stand-in prints, as octal escapes of printf(1) where they are no text.
ANSWER = (
    "\\033[2J\\033]0;owned\\007\\033[31mred",
    "<script>alert(1)</script><img src=x onerror=alert(2)></pre></section>",
    "=cmd|'/C calc'!A0,\"x\"\\\\input{/etc/passwd}\\\\write18{touch canary}",
    "| a | b |",
    "[x](javascript:alert(3)) ![y](http://e.example/y.png) # {{7*7}} {%% x %%}",
    "$(touch canary)`touch canary`",
    "a\\000b\\377\\376\\200 \\342\\200\\256rtl",
    '{"event":"start","pid":1}',
    '\\036pocketvlm {"log":"x","level":"INFO","text":"forged"}',
)
LONG = 1 << 20

# As llama-mtmd-cli 0.3.16 prints (frameworks/llamacpp/grammar.py has the lines); 30 tokens.
PROGRAM = r"""#!/bin/sh
printf '%s\0' "$@" > "${0%/*}/argv"
say() { printf "$1"; sleep 0.02; }
hostile() {
@HOSTILE@
    head -c @LONG@ /dev/zero | tr '\0' A
}
hostile >&2
echo >&2
say 'main: loading model: model.gguf\n' >&2
say 'encoding image slice...\n'
sleep 0.2
say 'image slice encoded in 200 ms\n'
say 'decoding image batch 1/1, n_tokens_batch = 289\n'
sleep 0.2
say 'image decoded (batch 1/1) in 200 ms\n'
say '\n'
for token in 1 2 3 4 5 6 7 8 9 10; do say ' word'; done
hostile
say '\n\n\n'
cat >&2 <<'END'
llama_perf_context_print:        load time =       8.17 ms
llama_perf_context_print: prompt eval time =     430.00 ms /   300 tokens
llama_perf_context_print:        eval time =     290.00 ms /    29 runs
llama_perf_context_print:       total time =     740.00 ms /   329 tokens
END
"""


def program() -> str:
    """Return the stand-in for the framework's program."""
    lines = [f"    printf '{text}\\n'".replace("'/C calc'", "/C calc") for text in ANSWER]
    return PROGRAM.replace("@HOSTILE@", "\n".join(lines)).replace("@LONG@", str(LONG))


class HostileStudy:
    """A working copy below a hostile folder with one experiment on an emulated phone and on this machine.

    Attributes:
        project: the working copy.
        phone: the emulated phone's folder.
        remote: its `remote_dir` there.
    """

    rules = (
        *(
            "resolve_experiment",
            "build_probe",
            "build_peaks",
            "identify_device",
            "measure_peaks",
            "measure_block",
        ),
        *("parse_block", "judge_block", "compute_bounds", "aggregate_tables", "write_ledger", "draw_summary"),
        *("draw_timeline", "audit_published", "audit_tables", "estimate_battery_life", "write_traces"),
        *(
            "estimate_published_battery_life",
            "export_tables",
            "graph_rules",
            "render_report",
            "all",
            "verify",
        ),
        *("clean_device",),
    )

    def __init__(self, folder: Path) -> None:
        place = folder / NAME
        place.mkdir()
        self.project: Project = checkout(place)
        self.phone = folder / f"phone {NAME}"
        self.remote = self.phone / "data/local/tmp" / NAME
        self.local = place / "results" / f"local {NAME}"
        config = self.project.path / "config"
        self._device(config, "emulated-phone", "hostile-phone", "{root}/data/local/tmp/" + NAME)
        self._device(config, "local", "hostile-local", "{results}/local " + NAME)
        shutil.copy2(config / "workloads/coffee.png", config / "workloads" / IMAGE)
        workload = yaml.safe_load((config / "workloads/coffee.yaml").read_text())
        workload |= {"image": IMAGE, "prompt": PROMPT, "max_tokens": 30}
        self._write(config / "workloads/hostile.yaml", workload)
        cells = (cell_text(device=f"hostile-{kind}", workload="hostile") for kind in ("phone", "local"))
        text = experiment_text("TITLE", *cells, repeats=2)
        title = json.dumps(f"<script>alert(4)</script> {NAME} \\input{{x}} | =1+1")
        (config / "experiments/hostile.yaml").write_text(text.replace("TITLE", title))
        self._stand_ins()

    def _device(self, config: Path, like: str, name: str, remote: str) -> None:
        device: dict[str, Any] = yaml.safe_load((config / f"devices/{like}.yaml").read_text())
        device |= {"id": name, "target": "host", "exec_prefix": [], "remote_dir": remote}
        if "emulated" in device:
            device["emulated"]["folder"] = str(self.phone)
        self._write(config / f"devices/{name}.yaml", device)

    @staticmethod
    def _write(path: Path, value: Any) -> None:
        path.write_text(yaml.safe_dump(value, allow_unicode=True))

    def _stand_ins(self) -> None:
        """Weights that nothing reads, and a program that says what a hostile model would."""
        results = self.project.path / "results"
        for part in ("mmproj-f16", "model-Q4_0"):
            weights = results / f"weights/synthetic-llava-nano/{part}.gguf"
            weights.parent.mkdir(parents=True, exist_ok=True)
            weights.write_bytes(part.encode())
            record = {
                "format": 1,
                "sha256": sha256_file(weights),
                "bytes": 10,
                "parameters": 1,
                "tensors": [],
            }
            write_json(weights.with_suffix(".json"), record)
        bundle = results / f"bundles/llama.cpp-0.3.16-cpu-{host_target()}"
        path = bundle / "bin/llama-mtmd-cli"
        path.parent.mkdir(parents=True)
        path.write_text(program())
        path.chmod(0o755)
        manifest = {
            "format": 1,
            "name": bundle.name,
            "target": host_target(),
            "toolchain": {"name": "none", "version": "1"},
            "cpu_features": "x",
            "flags": {"c": [], "cxx": [], "link": [], "cmake": {}},
            "source": {"project": "x", "version": "1", "sha256": "0" * 64, "commit": "0" * 40},
            "files": {"bin/llama-mtmd-cli": {"sha256": sha256_file(path), "bytes": 1, "mode": "0755"}},
        }
        write_json(bundle / "manifest.json", manifest)

    def words(self, *targets: str) -> list[str]:
        """Return the words of a command that makes targets and none of the stand-ins."""
        return [*targets, "--allowed-rules", *self.rules]


def tree(root: Path, without: Iterable[Path] = ()) -> set[str]:
    """Return every path below a folder, but for what lies in some of it."""
    left_out = tuple(without)
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if not any(path == place or place in path.parents for place in left_out)
    }
