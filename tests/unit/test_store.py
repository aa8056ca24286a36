"""The raw store: complete or absent, append-only, keyed by what made a run."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pocketvlm.errors import IntegrityError
from pocketvlm.measure.store import PROTOCOL_VERSION, RawStore, StoredRun, run_key

INPUTS = {"argv": ["x"], "settings": {"threads": 2}}


def add(store: RawStore, role: str = "measured", text: str = "out") -> StoredRun:
    with store.draft() as draft:
        (draft / "stdout").write_text(text)
        return store.add(draft, INPUTS, {"role": role})


def test_runs_are_numbered_in_the_order_they_were_added(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    names = [add(store).name for _ in range(3)]
    key = run_key(INPUTS)
    assert names == [f"{key}/00", f"{key}/01", f"{key}/02"]
    assert [run.number for run in store.complete(key)] == [0, 1, 2]
    assert store.complete(key)[0].meta["key_inputs"] == {"protocol_version": PROTOCOL_VERSION, **INPUTS}


def test_any_input_changes_the_key() -> None:
    assert run_key(INPUTS) != run_key({**INPUTS, "settings": {"threads": 3}})
    assert run_key(INPUTS) == run_key(dict(reversed(INPUTS.items())))


def test_a_run_without_its_record_does_not_exist(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    run = add(store)
    (run.folder / "meta.json").unlink()
    assert store.complete(run.key) == []
    # its number is not given out again: append-only
    assert add(store).number == 1


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    run = add(store)
    store.check(run)
    (run.folder / "stdout").write_text("0ut")
    with pytest.raises(IntegrityError, match="stdout"):
        store.check(run)
    (run.folder / "stdout").unlink()
    with pytest.raises(IntegrityError, match="absent"):
        store.check(run)


def test_what_was_set_aside_stays_and_no_longer_counts(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    old = add(store)
    store.set_aside(old.key)
    assert store.complete(old.key) == []
    assert (old.folder / "meta.json").is_file()
    assert [run.number for run in (add(store), *store.complete(old.key))] == [1, 1]


def test_a_draft_that_was_not_added_leaves_nothing(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    with pytest.raises(ValueError), store.draft() as draft:
        (draft / "stdout").write_text("half")
        raise ValueError
    assert list((tmp_path / ".drafts").iterdir()) == []


def test_the_draft_of_a_killed_process_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path; from pocketvlm.measure.store import RawStore\n"
        "with RawStore(Path(sys.argv[1])).draft() as d:\n"
        "    (d / 'x').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list((tmp_path / ".drafts").iterdir())) == 1
    store = RawStore(tmp_path)
    with store.draft() as mine:
        assert [folder.name for folder in (tmp_path / ".drafts").iterdir()] == [mine.name]
        with store.draft():
            assert mine.is_dir()


def test_two_writers_never_share_a_number(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.extend(add(store).number for _ in range(5))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(20))


def test_a_failed_run_is_kept_aside_and_never_counts(tmp_path: Path) -> None:
    store = RawStore(tmp_path / "raw")
    with store.draft() as draft:
        (draft / "stderr").write_text("boom")
        kept = store.keep_failed(draft, INPUTS, tmp_path / "failed")
    assert (kept / "stderr").read_text() == "boom"
    assert kept.parent == tmp_path / "failed" / run_key(INPUTS)
    assert store.complete(run_key(INPUTS)) == []
    assert list((tmp_path / "raw" / ".drafts").iterdir()) == []
