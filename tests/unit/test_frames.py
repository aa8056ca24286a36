"""Frames as gfxinfo and SurfaceFlinger print them, and as a hostile or broken device might."""

from __future__ import annotations

import random

import pytest

from pocketvlm.analyse import frames

HEADER = (
    "Flags,FrameTimelineVsyncId,IntendedVsync,Vsync,FrameDeadline,FrameInterval,FrameCompleted,GpuCompleted,"
)
OLD_HEADER = "Flags,IntendedVsync,Vsync,FrameCompleted,"
MS = 10**6


def printed(rows: list[str], header: str = HEADER, total: str = "") -> bytes:
    body = "\n".join([header, *rows])
    return (
        "Applications Graphics Acceleration Info:\nUptime: 7000 Realtime: 7000\n\n"
        "** Graphics info for pid 77 [com.android.settings] **\n\nStats since: 1ns\n"
        f"{total}\n---PROFILEDATA---\n{body}\n---PROFILEDATA---\n\nView hierarchy:\n"
    ).encode()


def row(due_ms: float, took_ms: float, flags: int = 0, interval_ms: float = 16.6) -> str:
    due = int(due_ms * MS)
    return f"{flags},9,{due},{due},{due},{int(interval_ms * MS)},{due + int(took_ms * MS)},0,"


def test_a_frame_is_janky_when_it_took_longer_than_its_interval() -> None:
    found = frames.from_framestats(
        printed(
            [row(1000, 10), row(1016, 20), row(1033, 10, interval_ms=8.3)],
            total="Total frames rendered: 512\nJanky frames: 40 (7.81%)\nJanky frames (legacy): 90 (17.58%)",
        ),
        None,
    )
    assert found is not None
    assert found.due_ns.tolist() == [1000 * MS, 1016 * MS, 1033 * MS]
    assert found.janky.tolist() == [False, True, True]
    assert (found.total, found.janky_total, found.full) == (512, 40, False)


def test_what_is_no_frame_is_left_out() -> None:
    rows = [
        row(1000, 10),
        row(1016, 900, flags=1),  # the window was laid out: an outlier by definition
        f"0,9,{frames.PENDING},1,1,1,{frames.PENDING},0,",
        f"0,9,{1050 * MS},1,1,1,0,0,",  # not completed
        "0,9,x,1,1,1,2,0,",
        "0,9",
        "",
        "0,9,99999999999999999999,1,1,1,2,0,",
    ]
    found = frames.from_framestats(printed(rows), None)
    assert found is not None
    assert found.due_ns.tolist() == [1000 * MS]


def test_an_old_table_is_held_to_the_display_or_to_60_hz() -> None:
    rows = [f"0,{1000 * MS},{1000 * MS},{1010 * MS},"]
    for period, janky in ((None, False), (8_333_333, True)):
        found = frames.from_framestats(printed(rows, OLD_HEADER), period)
        assert found is not None
        assert found.janky.tolist() == [janky]


def test_windows_are_put_together_in_the_order_of_time() -> None:
    two = printed([row(2000, 10)]) + printed([row(1000, 10)])
    found = frames.from_framestats(two, None)
    assert found is not None
    assert found.due_ns.tolist() == [1000 * MS, 2000 * MS]


def test_a_full_record_is_said_to_be_full() -> None:
    found = frames.from_framestats(printed([row(1000 + 17 * n, 10) for n in range(120)]), None)
    assert found is not None
    assert found.full


@pytest.mark.parametrize("data", [b"", b"No process found for: com.x\n", b"---PROFILEDATA---\n", b"\xff\x00"])
def test_no_table_of_frames(data: bytes) -> None:
    assert frames.from_framestats(data, None) is None
    assert frames.from_surfaceflinger(data) is None


def test_surfaceflinger() -> None:
    period = 16_666_667
    rows = [(n * period, n * period + 5, n * period + 10 * MS) for n in range(1, 6)]
    rows[3] = (rows[3][0], rows[3][1], rows[3][0] + 20 * MS)  # its latency grew by a period: one jank
    lines = [str(period), *("\t".join(map(str, cells)) for cells in rows)]
    lines += ["0\t0\t0", f"{6 * period}\t{frames.PENDING}\t{6 * period}", "1\t2", "a\tb\tc"]
    found = frames.from_surfaceflinger("\n".join(lines).encode())
    assert found is not None
    assert found.due_ns.size == 5
    assert found.janky.tolist() == [False, False, False, True, False]
    assert not found.full
    assert frames.refresh_period_ns(b"16666667\n") == period
    for wrong in (b"", b"0\n", b"x\n", b"-1\n", b"99999999999999999999\n"):
        assert frames.refresh_period_ns(wrong) is None


def test_no_bytes_whatever_end_in_an_error() -> None:
    """Pieces of real tables, cut, joined and with bytes changed; seeded, so that a failure is found again."""
    generator = random.Random(4)
    seeds = [
        printed([row(1000 + 17 * n, n) for n in range(9)], total="Total frames rendered: 9"),
        b"16666667\n1\t2\t3\n",
    ]
    for _ in range(3000):
        data = bytearray(generator.choice(seeds))
        for _ in range(generator.randrange(1, 12)):
            at = generator.randrange(len(data))
            how = generator.randrange(3)
            if how == 0:
                data[at] = generator.randrange(256)
            elif how == 1:
                del data[at : at + generator.randrange(40)]
            else:
                data[at:at] = data[: generator.randrange(200)]
            data = data or bytearray(b"x")
        for found in (frames.from_framestats(bytes(data), None), frames.from_surfaceflinger(bytes(data))):
            assert found is None or found.due_ns.shape == found.janky.shape
