"""The project's own order: linters and types, papers that tell the truth, nothing private in a file."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pocketvlm.analyse.dag import parse_rulegraph
from pocketvlm.config.schema import validate

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
PAPERS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the environment's programs in the project's folder."""
    return subprocess.run(
        [str(PROGRAMS / program), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def tracked() -> dict[Path, str]:
    """Every text file under version control, by its path."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    found: dict[Path, str] = {}
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            found[Path(name)] = data.decode("utf-8")
    assert Path("README.md") in found
    return found


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["snakefmt", "--check", "--no-format-shell", "--line-length", "110", "Snakefile", "workflow/rules"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_formatters_linters_and_types_are_content(command: list[str]) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_snakemake_lints_nothing_but_the_missing_environments() -> None:
    """Rules have neither container nor conda environment: the lock files in envs/ do that for all of them."""
    done = run("snakemake", "--lint")
    blocks = re.split(r"^Lints for ", done.stdout + done.stderr, flags=re.MULTILINE)[1:]
    findings = [
        (block.partition(":\n")[0], finding)
        for block in blocks
        for finding in re.findall(r"^    \* (.+)$", block, re.MULTILINE)
    ]
    environment = "Specify a conda environment or container for each rule.:"
    assert any(finding == environment for _, finding in findings), done.stdout + done.stderr
    assert [each for each in findings if each[1] != environment] == []


def own_hosts() -> set[str]:
    """The package registries of this machine's own clients: none belongs in a file."""
    from pip._internal.models.index import PyPI

    hosts = {str(PyPI.netloc), str(PyPI.file_storage_domain)}
    configured = run("pip", "config", "list").stdout
    hosts |= set(re.findall(r"index-url='[a-z+]+://(?:[^@/']*@)?([^/:']+)", configured))
    if shutil.which("apt-get"):
        sites = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=False
        ).stdout
        hosts |= set(re.findall(r"[a-z]+://([^/:\s]+)", sites))
    return {host for host in hosts if "." in host and not host.startswith("127.")}


def test_no_file_names_a_registry(tracked: dict[Path, str]) -> None:
    hosts = own_hosts()
    assert hosts
    found = [(str(path), host) for path, text in tracked.items() for host in hosts if host in text]
    assert found == []


def test_no_file_names_a_path_of_this_machine(tracked: dict[Path, str]) -> None:
    private = [f"{ROOT}/", f"{Path.home()}/"]
    found = [(str(path), place) for path, text in tracked.items() for place in private if place in text]
    assert found == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
        r"\b(AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|hf_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{50,})",
        r"://(?!user:secret@)[^/\s:@\"'{}<>\[\]()]+:[^/\s@\"'{}<>\[\]()]+@[A-Za-z0-9]",
        r"(?i)\b(password|passwd|secret|api_key|token)\s*[:=]\s*[\"'][^\"'\s{}]{8,}[\"']",
    ],
)
def test_no_file_holds_a_credential(tracked: dict[Path, str], pattern: str) -> None:
    found = [(str(path), match[0]) for path, text in tracked.items() if (match := re.search(pattern, text))]
    assert found == []


def section(text: str, heading: str) -> str:
    """Return what stands under a heading of the second level."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[1]


def fences(text: str) -> list[tuple[str, str]]:
    """Return language and content of every fenced block."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_quick_start_is_two_commands_of_one_line() -> None:
    blocks = fences(section((ROOT / "README.md").read_text(), "Quick start"))
    assert [language for language, _ in blocks] == ["sh", "sh"]
    (main_job, tests) = (content.splitlines() for _, content in blocks)
    assert len(main_job) == 1 and len(tests) == 1
    assert main_job[0].endswith(". .venv/bin/activate && snakemake --cores 4 all")
    assert tests[0].endswith(". .venv/bin/activate && pytest -n 2")
    assert "-r envs/workflow.txt" in main_job[0] and "-r envs/dev.txt" in tests[0]
    for line in (main_job[0], tests[0]):
        assert "--require-hashes" in line and not line.startswith(("$", "#", ">"))
        assert subprocess.run(["sh", "-n", "-c", line], capture_output=True).returncode == 0


def test_the_device_file_in_the_papers_is_valid() -> None:
    (example,) = [
        content
        for language, content in fences((ROOT / "docs/real-phone.md").read_text())
        if language == "yaml"
    ]
    validate(yaml.safe_load(example), "device", where="docs/real-phone.md")


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_links_lead_somewhere(paper: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", paper.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (paper.parent / path) if path else paper
        assert linked.exists(), f"{paper.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{paper.name} links to {target}"


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_papers_name_only_files_that_exist(paper: Path) -> None:
    tops = {path.name for path in ROOT.iterdir()} | {
        "Snakefile",
        "config",
        "docs",
        "envs",
        "profiles",
        "tests",
    }
    tops -= {"results", ".venv", ".snakemake"}
    named = 0
    for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", paper.read_text()):
        for word in span.split():
            top = word.split("/")[0]
            if top not in tops or re.search(r"[<>*{}…]", word) or word in ("pytest", "snakemake"):
                continue
            named += 1
            assert (ROOT / word).exists(), f"{paper.name} names {word}"
    if paper.name in ("README.md", "design.md"):
        assert named > 3, "the names in this paper are not recognised any more"


def without_shortcuts(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the transitive reduction: an edge that a longer way implies is left out."""

    def reaches(start: str, end: str, but: tuple[str, str]) -> bool:
        return any(
            there == end or reaches(there, end, but)
            for here, there in edges
            if here == start and (here, there) != but
        )

    return {edge for edge in edges if not reaches(*edge, edge)}


def test_the_picture_of_the_graph_is_the_graph() -> None:
    pictures = [
        content for language, content in fences((ROOT / "README.md").read_text()) if language == "mermaid"
    ]
    assert len(pictures) == 1
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)$", pictures[0], re.MULTILINE))
    done = run("snakemake", "--cores", "1", "--rulegraph", "dot", "all")
    assert done.returncode == 0, done.stderr
    real = {edge for edge in parse_rulegraph(done.stdout).edges if "all" not in edge}
    assert drawn == without_shortcuts(real)
