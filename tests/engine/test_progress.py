"""The memory that front and engine share: what one writes, the other reads, also once the writer is gone."""

from __future__ import annotations

import os
import signal

from antiphon.engine.progress import Progress


def test_what_is_written_is_seen_from_the_other_side():
    ours = Progress.create()
    theirs = Progress(os.dup(ours.fd))
    assert (ours.value, ours.working_on) == (0, frozenset())
    theirs.bump()
    theirs.work_on(["a", "b é"])
    assert (ours.value, ours.working_on) == (1, {"a", "b é"})
    theirs.work_on(["c"])
    assert ours.working_on == {"c"}
    theirs.work_on([])
    assert ours.working_on == frozenset()
    for side in (ours, theirs):
        side.close()


def test_it_outlives_the_process_that_wrote_it():
    ours = Progress.create()
    pid = os.fork()
    if pid == 0:
        theirs = Progress(os.dup(ours.fd))
        theirs.work_on(["poison"])
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert ours.working_on == {"poison"}
    ours.close()


def test_more_ids_than_there_is_room_for_are_cut_between_two():
    progress = Progress.create()
    ids = [f"{n:0133}" for n in range(10_000)]
    progress.work_on(ids)
    assert progress.working_on == set(ids[: len(progress.working_on)])
    assert 7000 < len(progress.working_on) < len(ids)
    progress.close()
