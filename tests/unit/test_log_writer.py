"""Log lines that nobody reads hold up nobody: pipes that are really full."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest
from rich.console import Console
from rich.text import Text

from antiphon.commands import logs
from antiphon.commands.terminal_log import TerminalFormatter
from antiphon.config import ServerConfig
from antiphon.http.edge.access_log import access_log_writer, access_logger
from antiphon.log_writer import LineWriter

WAITING = 10  # lines in a queue


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """(read end, write end) of a pipe that holds one page."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    yield read_end, write_end
    os.close(read_end)
    # A thread may still have lines to write: its number must not become that of the next test's pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), write_end)


def record(text: str, *arguments: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "args": arguments})


def read_until(read_end: int, what: bytes, writer: LineWriter) -> list[bytes]:
    """Whole lines; `writer` is given another one now and then, since a count of dropped lines comes with the next."""
    received = b""
    while what not in received:
        received += os.read(read_end, 1 << 16)
        if not writer._waiting.full():
            writer.emit(record("last"))
    return received[: received.rindex(b"\n")].split(b"\n")


def test_lines_that_nobody_reads_are_dropped_and_counted_and_the_rest_is_in_order(pipe):
    read_end, write_end = pipe
    writer = LineWriter(write_end, max_waiting=WAITING)
    for number in range(2000):  # far more than the pipe and the queue hold; a write that waits would never end
        writer.emit(record(f"{number} " + "x" * 500))
    number = num_dropped = 0
    for line in read_until(read_end, b"last", writer):
        if line.endswith(b"x"):
            assert int(line.split()[0]) == number
            number += 1
        elif b"dropped" in line:
            number += int(line.split()[0])
            num_dropped += int(line.split()[0])
    assert number == 2000
    assert writer.total_dropped == num_dropped > 0


def test_the_access_log_counts_in_json():
    writer = access_log_writer()
    assert json.loads(writer._dropped_line(3)) == {"dropped_lines": 3}
    writer.close()


def test_the_last_lines_are_written_when_it_is_closed(pipe):
    read_end, write_end = pipe
    writer = LineWriter(write_end)
    for number in range(5):
        writer.emit(record("%d lines", number))
    writer.close()
    assert os.read(read_end, 4096) == b"0 lines\n1 lines\n2 lines\n3 lines\n4 lines\n"


def test_closing_does_not_wait_for_a_reader(pipe):
    _, write_end = pipe
    writer = LineWriter(write_end, max_waiting=WAITING)
    for _ in range(100):
        writer.emit(record("x" * 1000))
    closing = threading.Thread(target=writer.close, daemon=True)
    closing.start()
    closing.join(60.0)
    assert not closing.is_alive()


def test_a_pipe_that_is_not_to_block_is_waited_for_by_the_thread_alone(pipe):
    read_end, write_end = pipe
    os.set_blocking(write_end, False)
    writer = LineWriter(write_end)
    for number in range(20):
        writer.emit(record(f"{number} " + "x" * 1000))
    received = b""
    while received.count(b"\n") < 20:
        received += os.read(read_end, 4096)
    assert [int(line.split()[0]) for line in received.splitlines()] == list(range(20))


def test_a_reader_that_is_gone_ends_the_thread_quietly(pipe):
    read_end, write_end = pipe
    os.dup2(os.open(os.devnull, os.O_RDONLY), read_end)  # the pipe has no reader any more
    writer = LineWriter(write_end)
    writer.emit(record("nobody"))
    writer._thread.join(60.0)
    assert not writer._thread.is_alive()
    writer.emit(record("still nobody"))


def test_a_message_that_cannot_be_formatted_is_a_line_too(pipe):
    read_end, write_end = pipe
    writer = LineWriter(write_end)
    writer.emit(record("%d of %d", "one"))
    writer.close()
    assert b"cannot be formatted: '%d of %d'" in os.read(read_end, 4096)


def test_lone_surrogates_are_escaped(pipe):
    read_end, write_end = pipe
    writer = LineWriter(write_end)
    writer.emit(record("\udcff"))
    writer.close()
    assert os.read(read_end, 4096) == b"\\udcff\n"


def test_a_terminal_gets_level_and_text_in_place_of_a_progress_bar():
    formatter = TerminalFormatter(Console(force_terminal=True, width=100, no_color=True))
    text = formatter.format(
        logging.makeLogRecord({"msg": "the engine [died]: %s", "args": ("x",), "levelname": "WARNING"})
    )
    assert text.startswith("\r\x1b[2K")
    assert "WARNING  the engine [died]: x" in Text.from_ansi(text.removeprefix("\r\x1b[2K")).plain
    assert "\n" not in text


def test_lines_for_which_the_disk_has_no_room_are_counted_and_later_ones_are_written(tmp_path):
    """The descriptor is that of a full disk until it is that of a file, as if the disk had been cleared."""
    with open("/dev/full", "wb", buffering=0) as full, open(tmp_path / "log", "wb", buffering=0) as file:
        descriptor = os.dup(full.fileno())
        writer = LineWriter(descriptor)
        for number in range(5):
            writer.emit(record(f"lost {number}"))
        while not writer._waiting.empty():
            time.sleep(0.001)
        os.dup2(file.fileno(), descriptor)
        writer.emit(record("first after"))
        writer.emit(record("second after"))
        writer.close()
        num_dropped = writer.total_dropped
        os.close(descriptor)
    note, *lines = (tmp_path / "log").read_text().splitlines()
    # The thread may have taken the last of the five just before there was room.
    assert int(note.split()[0]) + lines.count("lost 4") == 5
    assert num_dropped == int(note.split()[0])
    assert lines[-2:] == ["first after", "second after"]


def test_a_log_that_is_set_up_again_goes_on_counting_its_dropped_lines(monkeypatch):
    """Also while it is switched off."""
    monkeypatch.setattr(access_logger, "handlers", [])
    before, after = ServerConfig(access_log="json"), ServerConfig(access_log="text")
    logs.change_logging(ServerConfig(access_log="off"), before)
    monkeypatch.setattr(access_logger.handlers[0], "_total_dropped", 3)
    for old, new in ((before, after), (after, ServerConfig(access_log="off")), (ServerConfig(access_log="off"), after)):
        logs.change_logging(old, new)
        assert logs.dropped_lines()["access"] == 3
        assert len(access_logger.handlers) == 1
    access_logger.handlers[0].close()
