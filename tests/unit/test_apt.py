"""Private apt folders: what is taken from the system's sources, what is refused, and one real download."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvlm.errors import ProvisionError
from pocketvlm.provision import apt
from pocketvlm.provision.apt import Source, choose_sources, parse_uris, tree
from pocketvlm.provision.cache import cache_root

PRINTED = """\
'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_debian_dists_bookworm_InRelease 0
'http://mirror.example/debian/dists/bookworm-updates/InRelease' x 0
'http://mirror.example/debian-security/dists/bookworm-security/InRelease' x 0
'http://mirror.example/debian/dists/bookworm-backports/InRelease' x 0
'https://other.example/repo/dists/stable/InRelease' x 0
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0 :
"""
MAIN = Source("http://mirror.example/debian", "bookworm")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))


def test_archives_are_read_from_what_apt_would_fetch():
    assert parse_uris(PRINTED) == [
        MAIN,
        Source("http://mirror.example/debian", "bookworm-updates"),
        Source("http://mirror.example/debian-security", "bookworm-security"),
        Source("http://mirror.example/debian", "bookworm-backports"),
        Source("https://other.example/repo", "stable"),
    ]
    assert parse_uris("E: nothing\n") == []


def test_the_systems_release_comes_with_updates_and_security_and_nothing_else():
    chosen = choose_sources(parse_uris(PRINTED), None, "bookworm", "x")
    assert [source.suite for source in chosen] == ["bookworm", "bookworm-updates", "bookworm-security"]


def test_another_suite_comes_from_the_same_mirror(monkeypatch):
    monkeypatch.setattr(apt, "_system_release", lambda wanted: "bookworm")
    assert choose_sources(parse_uris(PRINTED), "trixie", "trixie", "x") == [Source(MAIN.uri, "trixie")]


def test_sources_without_debian_are_refused_with_the_way_out():
    with pytest.raises(ProvisionError, match="name no mirror of bookworm") as caught:
        choose_sources([Source("https://other.example/repo", "stable")], None, "bookworm", "adbd")
    assert "snakemake --cores 4 all --config experiment=local" in str(caught.value)


@pytest.mark.parametrize("names", [[], ["-o"], ["a b"], ["../x"], ["Upper"]])
def test_what_is_no_package_name_never_reaches_apt(names, monkeypatch):
    monkeypatch.setattr(apt, "_run", lambda *_: pytest.fail("apt was run"))
    with pytest.raises(ProvisionError, match="package names"):
        tree(names)


def test_what_is_no_suite_never_reaches_apt():
    with pytest.raises(ProvisionError, match="no name of a Debian suite"):
        tree(["adbd"], suite="trixie main\ndeb http://x")


def test_macos_is_told_what_runs_without(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ProvisionError, match="has no apt") as caught:
        tree(["adbd"])
    assert "experiment=local" in str(caught.value)


def test_a_system_without_apt_is_told_what_runs_without(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(ProvisionError, match="apt-get, dpkg, dpkg-deb not found") as caught:
        tree(["adbd"])
    assert "experiment=local" in str(caught.value)


def test_a_system_without_debians_keys_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(apt, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(ProvisionError, match="signatures cannot be checked"):
        tree(["adbd"])


def test_a_mirrors_password_is_not_shown(monkeypatch, tmp_path):
    fake = tmp_path / "bin" / "apt-get"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\necho 'E: Failed to fetch http://user:secret@mirror.example/x' >&2\nexit 100\n"
    )
    fake.chmod(0o755)
    with pytest.raises(ProvisionError, match=r"Failed to fetch http://mirror\.example/x") as caught:
        apt._run([str(fake)], "adbd", 5)
    assert "secret" not in str(caught.value)


def test_a_mirror_that_hangs_is_given_up(tmp_path):
    with pytest.raises(ProvisionError, match=r"did not finish in 0\.2 s") as caught:
        apt._run(["sleep", "20"], "adbd", 0.2)
    assert "experiment=local" in str(caught.value)


def test_the_cache_is_where_the_variables_say(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "cache"
    assert cache_root().stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("POCKETVLM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "pocketvlm"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "pocketvlm"


def _state_of_the_system() -> list[tuple[str, int, int]]:
    files = [
        file
        for folder in ("/var/lib/apt", "/var/cache/apt", "/var/lib/dpkg", "/etc/apt")
        for file in Path(folder).rglob("*")
    ]
    return sorted((str(file), file.lstat().st_mtime_ns, file.lstat().st_size) for file in files)


@pytest.mark.slow
def test_two_callers_share_one_download_and_the_system_is_left_alone(tmp_path):
    if shutil.which("apt-get") is None:
        pytest.skip("no apt here")
    before = _state_of_the_system()
    script = "from pocketvlm.provision.apt import tree; print(tree(['hostname']))"
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ended = [caller.communicate(timeout=300) for caller in callers]
    assert [caller.returncode for caller in callers] == [0, 0], ended
    roots = {Path(stdout.strip()) for stdout, _ in ended}
    assert len(roots) == 1
    root = roots.pop()
    assert sum("apt: fetching hostname" in stderr for _, stderr in ended) == 1
    assert (root / "bin/hostname").exists() or (root / "usr/bin/hostname").exists()
    assert list(root.rglob("libc.so.6")), "the package's dependencies come along"
    assert not [file for file in root.rglob("*") if not file.is_symlink() and file.stat().st_mode & 0o6000]
    assert not list(root.parents[1].glob(".*")), "nothing half-made stays"
    assert _state_of_the_system() == before


@pytest.mark.slow
def test_an_archive_that_debian_did_not_sign_is_refused(monkeypatch, tmp_path):
    if shutil.which("apt-get") is None:
        pytest.skip("no apt here")
    keyring = tmp_path / "empty.gpg"
    keyring.write_bytes(b"")
    monkeypatch.setattr(apt, "KEYRING", keyring)
    with pytest.raises(ProvisionError, match="cannot be had now"):
        tree(["hostname"])
    assert not list((cache_root() / "apt").glob("hostname-*"))
