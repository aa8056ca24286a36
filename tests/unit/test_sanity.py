"""Answers of trained weights that cannot be any."""

from __future__ import annotations

import time

import pytest

from pocketvlm.analyse.sanity import repeated, wrong_answer

GOOD = (
    "The image shows a cup of coffee on a brown saucer, with a spoon beside it. The table below is made of "
    "dark wood, and light falls from the upper left. The picture makes me feel calm and a little tired."
)


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "Yes.",
        "no no no",
        "Eine Tasse Kaffee, süß und heiß. ☕☕☕",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n" + GOOD + GOOD,
        "a",
    ],
)
def test_an_answer_is_one(answer):
    assert wrong_answer(answer.encode()) == ""


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "the answer has no words"),
        (b" \n\t ", "the answer has no words"),
        (b"a cup of \xff\xfe", "the answer is no UTF-8 from byte 9 on"),
        (b"the" * 50, "repeats 'the' 50 times"),
        (b"the " * 50, "repeats 'the ' 4"),
        (b"!" * 40, "repeats '!' 40 times"),
        (b"A cup." + b" on the table," * 30, "repeats ' on the table,' 30 times"),
        ("\u2581\u0000".encode() * 60, "60 times"),
        (b"a;" * 30, "repeats 'a,' 30 times"),
    ],
)
def test_an_answer_is_none(answer, told):
    why = wrong_answer(answer)
    assert told in why
    assert ";" not in why
    assert why.isprintable()


def test_a_loop_at_the_end_of_a_long_answer_is_not_most_of_it():
    assert wrong_answer(GOOD.encode() + b" so" * 10) == ""
    assert "' so'" in wrong_answer(GOOD.encode() + b" so" * 100)


def test_the_piece_is_the_shortest_that_tells_it():
    assert repeated("abababababab") == ("ab", 6)
    assert repeated("xabcabcabc") == ("abc", 3)
    assert repeated("abc")[1] == 1
    assert repeated("") == ("", 1)


def test_expected_words():
    words = ["cup|mug", "coffee|espresso"]
    assert wrong_answer(GOOD.encode(), words) == ""
    assert wrong_answer(b"A MUG of Espresso.", words) == ""
    assert wrong_answer(b"Two cups of coffee.", words) == "", "the beginning of a word is enough"
    assert wrong_answer(b"A dog on a lawn.", words) == "the answer lacks 'cup|mug', 'coffee|espresso'"
    assert "'cup|mug'" in wrong_answer(b"Hiccup, coffee.", words), "its end is not"
    assert wrong_answer(b"(a.b)", ["(a.b"]) == "", "words, and no pattern"


def test_a_long_answer_takes_no_time():
    started = time.monotonic()
    wrong_answer(b"ab" * 2_000_000, ["x"])
    wrong_answer(b"a" * 4_000_000 + b"b", ["x"])
    assert time.monotonic() - started < 10
