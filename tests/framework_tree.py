"""A source tree and binaries of a framework that a user has: a small program that speaks llama.cpp's output.

It computes nothing and says so in every table by its framework's name, which ends in `-stand-in`.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import yaml

from pocketvlm.build.toolchains import host_target
from pocketvlm.provenance import sha256_file
from tests.experiments import cell_text, experiment_text

NAME = "tree-stand-in"
# As llama-mtmd-cli 0.3.16 prints (frameworks/llamacpp/grammar.py has the lines); 30 tokens. It needs the file
# `share/words` of its bundle, so that it only works where that came whole.
MAIN = r"""
#include <stdio.h>
#include <string.h>
#include <time.h>

static void say(FILE *where, const char *text, int ms) {
    fputs(text, where);
    fflush(where);
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&pause, 0);
}

int main(int argc, char **argv) {
    char words[4096] = "", *slash = strrchr(argv[0], '/');
    snprintf(words, sizeof words, "%.*s/../share/words", (int)(slash - argv[0]), argv[0]);
    FILE *file = fopen(words, "r");
    if (!file || !fgets(words, sizeof words, file)) {
        fprintf(stderr, "error: no words in %s\n", words);
        return 1;
    }
    say(stderr, "main: loading model: model.gguf\n", 60);
    say(stdout, "encoding image slice...\n", 200);
    say(stdout, "image slice encoded in 200 ms\n", 20);
    say(stdout, "decoding image batch 1/1, n_tokens_batch = 289\n", 200);
    say(stdout, "image decoded (batch 1/1) in 200 ms\n", 20);
    say(stdout, "\n", 20);
    for (int token = 0; token < 30; token++) say(stdout, words, 10);
    say(stdout, "\n\n\n", 0);
    fputs("llama_perf_context_print:        load time =       60.00 ms\n"
          "llama_perf_context_print: prompt eval time =     440.00 ms /   300 tokens\n"
          "llama_perf_context_print:        eval time =     290.00 ms /    29 runs\n"
          "llama_perf_context_print:       total time =     740.00 ms /   329 tokens\n", stderr);
    return 0;
}
"""
STEPS = [
    ["{cc}", "-O2", "{cflags}", "{ldflags}", "-o", "{prefix}/say", "{source}/main.c"],
    ["sh", "-c", 'mkdir {prefix}/share && cp "$1"/words {prefix}/share/', "sh", "{source}"],
]
COLLECT = {"bin/llama-mtmd-cli": "{prefix}/say", "share": "{prefix}/share"}


def write_tree(folder: Path) -> Path:
    """Write the source tree; return its folder."""
    folder.mkdir(parents=True)
    (folder / "main.c").write_text(MAIN)
    (folder / "words").write_text(" word")
    return folder


def entry(source: dict[str, Any], **version: Any) -> dict[str, Any]:
    """Return the framework's entry of a table of frameworks."""
    marks = {
        "marker": "<__media__>",
        "flash_attention": {"enabled": [], "disabled": []},
        "mmap": {"enabled": [], "disabled": []},
    }
    return {
        "adapter": "llamacpp",
        "versions": {"1": {"source": source, "quirks": marks, **version}},
        "backends": {"cpu": {"options": {}}},
    }


def from_tree(path: str) -> dict[str, Any]:
    """Return the entry of a framework that is built from a source tree by plain commands."""
    build = {"tool": "command", "steps": STEPS, "collect": COLLECT}
    return {**entry({"kind": "directory", "path": path}), "build": build}


def pack(bundle: Path, archive: Path) -> dict[str, Any]:
    """Pack a bundle's files as somebody would who built them elsewhere; return their source."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(bundle.rglob("*")):
            if path.is_file() and path.name != "manifest.json":
                tar.add(path, f"stand-in-1/{path.relative_to(bundle)}")
    return {
        "kind": "prebuilt",
        "targets": {host_target(): {"path": archive.name, "sha256": sha256_file(archive)}},
    }


def overlay(path: Path, **frameworks: Any) -> Path:
    """Write a user's own table of frameworks; keys are names with `_` for `-`."""
    table = {name.replace("_", "-"): value for name, value in frameworks.items()}
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def experiment(*frameworks: str) -> str:
    """Return an experiment with a cell of each of these frameworks (version 1), on this machine."""
    cells = (
        cell_text(framework=name, version='"1"', workload="stand-in", settings=f"{{batch: {512 + number}}}")
        for number, name in enumerate(frameworks)
    )
    return experiment_text("frameworks that a user has", *cells, absent="row", repeats=1)
