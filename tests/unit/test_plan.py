"""The order of the runs of a block."""

from collections import Counter

from pocketvlm.measure.plan import plan


def test_idle_comes_first_then_warmups_then_complete_rounds() -> None:
    runs = plan({"a": 3, "b": 3, "c": 3}, warmups=2, seed=1)
    assert [run.role for run in runs] == ["idle"] + ["warmup"] * 6 + ["measured"] * 9
    assert [run.position for run in runs] == list(range(16))
    for number in (1, 2, 3):
        assert sorted(str(run.cell) for run in runs if run.round == number) == ["a", "b", "c"]
    assert Counter(run.cell for run in runs if run.role == "warmup") == {"a": 2, "b": 2, "c": 2}


def test_the_seed_fixes_the_order_and_another_seed_gives_another() -> None:
    missing = dict.fromkeys("abcdef", 5)
    assert plan(missing, warmups=1, seed=7) == plan(missing, warmups=1, seed=7)
    assert plan(missing, warmups=1, seed=7) != plan(missing, warmups=1, seed=8)


def test_rounds_differ_in_order() -> None:
    runs = plan(dict.fromkeys("abcdef", 5), warmups=0, seed=7)
    orders = {tuple(run.cell for run in runs if run.round == number) for number in range(1, 6)}
    assert len(orders) > 1


def test_only_what_lacks_is_planned_and_warmed_up() -> None:
    runs = plan({"a": 0, "b": 2, "c": 1}, warmups=1, seed=1)
    assert Counter(run.cell for run in runs if run.role == "measured") == {"b": 2, "c": 1}
    assert {run.cell for run in runs if run.role == "warmup"} == {"b", "c"}


def test_nothing_lacking_means_no_run_at_all() -> None:
    assert plan({"a": 0}, warmups=3, seed=1) == []
