"""Lines reach a slow reader later, a broken one never, and the server waits for neither."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver.telemetry.sink import GATHER, LineSink


def dropped_line(lines: int) -> bytes:
    return f"dropped {lines}\n".encode()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def drained(reading: int) -> bytes:
    os.set_blocking(reading, False)
    read = b""
    while True:
        try:
            part = os.read(reading, 1_000_000)
        except BlockingIOError:
            return read
        read += part


def test_lines_wait_for_the_end_of_the_batch(pipe: tuple[int, int]) -> None:
    sink = LineSink(pipe[1], dropped_line=dropped_line)
    sink.write(b"a\n")
    sink.write(b"b\n")
    assert drained(pipe[0]) == b""
    sink.flush()
    assert drained(pipe[0]) == b"a\nb\n"


def test_large_batch_is_written_without_waiting(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    sink = LineSink(descriptor, dropped_line=dropped_line)
    for _ in range(GATHER // 100 + 1):
        sink.write(b"x" * 99 + b"\n")
    assert os.fstat(descriptor).st_size >= GATHER
    os.close(descriptor)


def test_reader_that_does_not_read_stops_nobody(pipe: tuple[int, int]) -> None:
    sink = LineSink(pipe[1], dropped_line=dropped_line, max_bytes=200_000)
    line = b"x" * 999 + b"\n"
    for _ in range(1_000):
        sink.write(line)
    sink.flush()
    assert sink.dropped > 0
    assert not sink.broken


def test_slow_reader_gets_whole_lines_and_is_told_what_was_lost(pipe: tuple[int, int]) -> None:
    sink = LineSink(pipe[1], dropped_line=dropped_line, max_bytes=200_000)
    line = b"x" * 999 + b"\n"
    for _ in range(1_000):
        sink.write(line)
    read = b""
    while part := drained(pipe[0]):
        read += part
        sink.flush()
    written = read.decode().splitlines()
    assert written[-1] == f"dropped {sink.dropped}"
    assert written[:-1] == ["x" * 999] * (1_000 - sink.dropped)


def test_closed_reader_is_no_error(pipe: tuple[int, int]) -> None:
    sink = LineSink(pipe[1], dropped_line=dropped_line)
    os.close(pipe[0])
    sink.write(b"a\n")
    sink.flush()
    assert sink.broken
    sink.close()


def test_full_disk_is_no_error() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    sink = LineSink(descriptor, dropped_line=dropped_line)
    sink.write(b"a\n")
    sink.flush()
    assert sink.broken
    os.close(descriptor)


def test_nonblocking_descriptor_is_served_too(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    sink = LineSink(pipe[1], dropped_line=dropped_line)
    for _ in range(200):
        sink.write(b"x" * 999 + b"\n")
    sink.flush()
    read = drained(pipe[0])
    sink.flush()
    assert len(read + drained(pipe[0])) > 65_536


def test_close_waits_a_little_for_a_slow_reader(pipe: tuple[int, int]) -> None:
    sink = LineSink(pipe[1], dropped_line=dropped_line)
    for _ in range(150):
        sink.write(b"x" * 999 + b"\n")
    sink.flush()
    read: list[bytes] = []

    def reader() -> None:
        while part := os.read(pipe[0], 10_000):
            read.append(part)

    thread = threading.Thread(target=reader)
    thread.start()
    sink.close()
    os.close(pipe[1])
    thread.join(5)
    assert len(b"".join(read)) == 150_000


def test_close_gives_up_on_a_reader_that_does_not_read(pipe: tuple[int, int]) -> None:
    sink = LineSink(pipe[1], dropped_line=dropped_line)
    for _ in range(150):
        sink.write(b"x" * 999 + b"\n")
    before = time.monotonic()
    sink.close(patience=0.1)
    assert time.monotonic() - before < 2
