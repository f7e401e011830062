"""`antiphon batch`: answers that are the server's, mistakes that stay on their lines, a file that survives anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from http_server import serving
from patience import PATIENCE
from typer.testing import CliRunner

from antiphon.cli import app
from antiphon.config import FakeSettings
from antiphon.errors import AntiphonError, ConfigError
from antiphon.loading.model import Found
from antiphon.offline.batch import count_lines, run_batch
from antiphon.offline.batch_file import BatchFile
from antiphon.offline.batch_lines import BadLine, BatchRequest, read_lines
from antiphon.offline.settings import configs

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
SOME_FAILED = 3
_DIFFERS = ("id", "created", "created_at", "completed_at", "timings")


def line(custom_id: Any, body: Any, url: str = COMPLETIONS, **others: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body, **others}


def prompts(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [line(f"r{n}", {"prompt": [n % 200 + 1], "seed": n, **fields}) for n in range(count)]


def write(path: Path, lines: Iterable[Any]) -> Path:
    """A file of lines; bytes are written as they are."""
    path.write_bytes(
        b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)
    )
    return path


def read(path: Path) -> list[dict[str, Any]]:
    assert path.read_bytes().endswith(b"\n")
    return [json.loads(each) for each in path.read_text().splitlines()]


def by_id(path: Path) -> dict[str, Any]:
    lines = read(path)
    found = {each["custom_id"]: each["response"] for each in lines}
    assert len(found) == len(lines)
    return found


def told(body: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs each time."""
    return {name: value for name, value in body.items() if name not in _DIFFERS}


async def answer(
    requests: Path, answers: Path, model: Path, *, fake: FakeSettings | None = None, **settings: Any
) -> Any:
    engine, front = configs(str(model), {"fake": True, "fake_settings": fake or FakeSettings(), **settings})
    with BatchFile(answers, requests) as file:
        return await run_batch(requests, file, Found(model, "tiny"), engine, front, lambda _: None)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "antiphon", "batch", *map(str, arguments), "--fake-engine", "-np", "4"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE)


# --- answers


async def test_an_answer_is_the_servers_answer(tmp_path, tiny: Path):
    question = {"messages": [{"role": "user", "content": "Hello é"}], "seed": 1, "temperature": 0.7, "max_tokens": 9}
    asked = {
        "chat": (CHAT, {**question, "n": 2, "logprobs": True}),
        "completions": (COMPLETIONS, {"prompt": ["a", "b"], "seed": 2}),
        "refused": (CHAT, {**question, "temperature": 9}),
        "unknown": (CHAT, {**question, "model": "other"}),
        "no object": (CHAT, [1]),
        "too deep": (CHAT, json.loads("[" * 70 + "]" * 70)),
        "long": (COMPLETIONS, {"prompt": [1] * 600}),
        "responses": (RESPONSES, {"input": "Hello", "temperature": 0, "max_output_tokens": 9}),
    }
    requests = write(tmp_path / "in.jsonl", [line(name, body, url) for name, (url, body) in asked.items()])
    done = await answer(requests, tmp_path / "out.jsonl", tiny, fake=FakeSettings(eos_token_id=-1))
    assert (done.done, done.failed, done.kept) == (8, 5, 0)
    found = by_id(tmp_path / "out.jsonl")
    async with serving(tmp_path, fake={"eos_token_id": -1, "context_length": 512}, max_stored_responses=0) as server:
        for name, (url, body) in asked.items():
            reply = await server.http.post(url, json=body)
            assert found[name]["status_code"] == reply.status_code
            assert found[name]["request_id"].startswith("req-")
            if name != "responses":  # its items have ids of their own
                assert told(found[name]["body"]) == told(reply.json())
        text = [item["content"][0]["text"] for item in found["responses"]["body"]["output"]]
        assert text == [item["content"][0]["text"] for item in reply.json()["output"]]


async def test_the_shape_is_openais(tmp_path, tiny: Path):
    requests = write(tmp_path / "in.jsonl", prompts(2))
    await answer(requests, tmp_path / "out.jsonl", tiny)
    for each in read(tmp_path / "out.jsonl"):
        assert list(each) == ["id", "custom_id", "response", "error"]
        assert each["id"].startswith("batch_req_")
        assert list(each["response"]) == ["status_code", "request_id", "body"]
        assert each["error"] is None


BAD = [
    (b"not json", None, "not a JSON object"),
    (b"[1]", None, "not a JSON object"),
    (b'{"custom_id": "x"', None, "not a JSON object"),
    (b'{"custom_id": "\xff"}', "custom_id", "string"),
    (b"[" * 10_000, None, "not a JSON object"),
    ({}, "custom_id", "Missing"),
    (line(5, {}), "custom_id", "string"),
    (line("", {}), "custom_id", "1 to 512"),
    (line("x" * 513, {}), "custom_id", "1 to 512"),
    (line("x", {}) | {"method": "GET"}, "method", "POST"),
    (line("x", {}, "/v1/embeddings"), "url", CHAT),
    (line("x", {}, priority=1), "priority", "Unknown"),
    ({"custom_id": "x", "method": "POST", "url": CHAT}, "body", "Missing"),
    (line("x", {"prompt": "a", "stream": True}), "body.stream", "stream"),
]


async def test_a_line_that_is_wrong_says_why_and_spoils_no_other(tmp_path, tiny: Path):
    good = prompts(2)
    requests = write(tmp_path / "in.jsonl", [good[0], *(bad for bad, _, _ in BAD), good[0], b"", b"  \r", good[1]])
    done = await answer(requests, tmp_path / "out.jsonl", tiny)
    assert (done.done, done.failed) == (len(BAD) + 3, len(BAD) + 1)
    lines = read(tmp_path / "out.jsonl")
    errors = {each["error"]["line"]: each for each in lines if each["error"]}
    assert sorted(errors) == list(range(2, len(BAD) + 3))
    for number, (_, param, said) in enumerate(BAD, 2):
        response = errors[number]["response"]
        assert response["status_code"] == 400
        assert response["body"]["error"]["type"] == "invalid_request_error"
        assert response["body"]["error"]["param"] == param
        assert said in response["body"]["error"]["message"] == errors[number]["error"]["message"]
    assert "occurs earlier" in errors[len(BAD) + 2]["error"]["message"]
    assert {each["custom_id"] for each in lines if each["response"]["status_code"] == 200} == {"r0", "r1"}


def test_a_line_may_be_too_long_begin_with_a_mark_and_lack_its_end(tmp_path):
    good = json.dumps(line("a", {})).encode()
    for end in (b"", b"\n", b"\r\n"):
        path = tmp_path / "in.jsonl"
        path.write_bytes(
            b"\xef\xbb\xbf" + good + b"\r\n" + b"x" * 3_000_000 + b"\n" + good.replace(b"a", b"a", 1) + end
        )
        assert count_lines(path) == 3
        with path.open("rb") as file:
            first, long, last = [each for _, each in read_lines(file, 1000)]
        assert isinstance(long, BadLine)
        assert long.error.http_status == 413
        assert isinstance(first, BatchRequest)
        assert first == last


def test_no_more_than_a_line_is_held(tmp_path):
    path = write(tmp_path / "in.jsonl", (line(f"r{n}", {"prompt": "x" * 10_000}) for n in range(3000)))
    tracemalloc.start()
    with path.open("rb") as file:
        assert sum(1 for _ in read_lines(file, 1 << 20)) == 3000
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()


async def test_as_many_at_once_as_keep_the_engine_busy(tmp_path, tiny: Path, monkeypatch):
    from antiphon.offline import batch

    running, most = 0, 0
    ask = batch._Worker._ask

    async def counted(self, request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await ask(self, request)
        running -= 1

    monkeypatch.setattr(batch._Worker, "_ask", counted)
    requests = write(tmp_path / "in.jsonl", prompts(60, max_tokens=5))
    done = await answer(requests, tmp_path / "out.jsonl", tiny, max_num_seqs=3)
    assert (done.done, done.failed, most) == (60, 0, 6)


# --- resuming


async def test_a_batch_goes_on_where_it_was(tmp_path, tiny: Path):
    lines = [*prompts(6), b"broken", prompts(1)[0]]
    requests = write(tmp_path / "in.jsonl", lines)
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    await answer(requests, whole, tiny)
    written = whole.read_bytes().splitlines(keepends=True)
    for kept in (0, 3, 8):
        for rest in (b"", written[kept][:-9] if kept < len(written) else b"\0\0"):
            resumed.write_bytes(b"".join(written[:kept]) + rest)
            done = await answer(requests, resumed, tiny)
            assert (done.kept, done.done, done.failed) == (kept, 8, 2)
            assert resumed.read_bytes().startswith(b"".join(written[:kept]))
            again = {(each["custom_id"], (each["error"] or {}).get("line")): each for each in read(resumed)}
            before = {(each["custom_id"], (each["error"] or {}).get("line")): each for each in read(whole)}
            assert len(read(resumed)) == 8
            assert {key: told(each["response"]["body"]) for key, each in again.items()} == {
                key: told(each["response"]["body"]) for key, each in before.items()
            }


async def test_a_last_line_that_lacks_only_its_line_feed_is_kept(tmp_path, tiny: Path):
    requests, answers = write(tmp_path / "in.jsonl", prompts(3)), tmp_path / "out.jsonl"
    await answer(requests, answers, tiny)
    written = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(written[0] + written[1][:-1])
    done = await answer(requests, answers, tiny)
    assert (done.kept, done.done) == (2, 3)
    assert answers.read_bytes().startswith(written[0] + written[1])
    assert len(read(answers)) == 3


STRANGERS = [
    b"my notes, without a line feed",
    b'{"id":"batch_of_mine","custom_id":"x"',
    b'{"id": "batch_req_1", "custom_id": "x"',  # OpenAI's own, cut off
    b"GGUF" + bytes(range(11, 256)) * 3000,
]
TOO_SHORT_TO_TELL = [b"{", b'{"id":', b"\0\0\0\0"]  # behind whole answers they are what is left of one


@pytest.mark.parametrize("content", [*STRANGERS, *TOO_SHORT_TO_TELL], ids=lambda content: repr(content[:12]))
def test_a_file_without_a_line_feed_that_is_not_a_batchs_is_not_touched(tmp_path, content):
    requests, answers = write(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    answers.write_bytes(content)
    with pytest.raises(ConfigError, match=r"it was not changed\. Name another file"):
        BatchFile(answers, requests)
    assert answers.read_bytes() == content


@pytest.mark.parametrize("content", STRANGERS, ids=lambda content: repr(content[:12]))
async def test_nor_is_one_that_begins_with_a_batchs_answers(tmp_path, tiny: Path, content):
    requests, answers = write(tmp_path / "in.jsonl", prompts(1)), tmp_path / "out.jsonl"
    await answer(requests, answers, tiny)
    content = answers.read_bytes() + content
    answers.write_bytes(content)
    with pytest.raises(ConfigError, match="line 2 of it is not an answer"):
        BatchFile(answers, requests)
    assert answers.read_bytes() == content


@pytest.mark.parametrize("model", ["no-model.gguf", "broken.gguf"])
def test_a_line_that_was_cut_off_stays_until_the_model_is_loaded(tmp_path, model):
    requests, answers = write(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    content = b'{"id":"batch_req_0","custom_id":"r0","respo'
    answers.write_bytes(content)
    done = run(requests, answers, tmp_path / model)
    assert done.returncode == 1, done.stderr
    assert answers.read_bytes() == content


def test_a_disk_that_is_full_leaves_whole_lines(tmp_path, monkeypatch):
    requests, answers = write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl"
    with BatchFile(answers, requests) as file:
        file.add_answer("a", b"first\n", failed=False)
        write_some = os.write

        def full(fd: int, data: bytes) -> int:
            if len(data) < 6:
                raise OSError(28, "No space left on device")
            return write_some(fd, data[:5])

        monkeypatch.setattr("antiphon.offline.batch_file.os.write", full)
        with pytest.raises(ConfigError, match="No space left"):
            file.add_answer("b", b"second\n", failed=False)
        monkeypatch.undo()
        assert answers.read_bytes() == b"first\n"
        file.add_answer("c", b"third\n", failed=False)
    assert answers.read_bytes() == b"first\nthird\n"


def test_a_strangers_file_of_one_endless_line_is_not_read_whole(tmp_path):
    requests, answers = write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl"
    answers.write_bytes(b"[" + b"1," * (16 << 20))
    tracemalloc.start()
    with pytest.raises(ConfigError):
        BatchFile(answers, requests)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def _wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("end", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=["killed", "interrupted"]
)
def test_a_batch_that_is_stopped_in_the_middle_goes_on(tmp_path, tiny: Path, end, status):
    requests, answers = write(tmp_path / "in.jsonl", prompts(100, max_tokens=150)), tmp_path / "out.jsonl"
    process = subprocess.Popen(command(requests, answers, tiny), stderr=subprocess.PIPE, text=True)
    _wait_for_lines(answers, 5, process)
    process.send_signal(end)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert ("the same command continues" in errors) == (end is signal.SIGINT)
    kept = answers.read_bytes()
    assert 5 <= kept.count(b"\n") < 100
    done = run(requests, answers, tiny)
    assert done.returncode == 0, done.stderr
    assert "of them earlier" in done.stderr
    assert answers.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert by_id(answers).keys() == {f"r{n}" for n in range(100)}


def test_the_exit_status_says_whether_lines_failed(tmp_path, tiny: Path):
    requests, answers = write(tmp_path / "in.jsonl", prompts(3)), tmp_path / "out.jsonl"
    done = run(requests, answers, tiny)
    assert (done.returncode, done.stdout) == (0, "")
    assert "3 lines done, 0 failed" in done.stderr
    with requests.open("a") as file:
        file.write("broken\n")
    for kept in ("3", "4"):
        done = run("-i", requests, f"-o={answers}", "--model", tiny)
        assert done.returncode == SOME_FAILED
        assert f"4 lines done, {kept} of them earlier, 1 failed" in done.stderr


def test_what_cannot_be_done_is_said_before_a_model_is_loaded(tmp_path, tiny: Path):
    requests, other = write(tmp_path / "in.jsonl", prompts(1)), tmp_path / "notes.txt"
    other.write_text("my notes\n")
    for files, said in (
        ((tmp_path / "none.jsonl", tmp_path / "out.jsonl"), "there is no file"),
        ((tmp_path, tmp_path / "out.jsonl"), "there is no file"),
        ((requests, requests), "holds the requests"),
        ((requests, other), "line 1 of"),
        ((requests, tmp_path / "nowhere" / "out.jsonl"), "cannot write"),
        ((requests, "/dev/null"), "is not a regular file"),
        ((requests, tmp_path / "out.jsonl"), "no file or folder"),
    ):
        done = CliRunner().invoke(app, ["batch", *map(str, files), "no-model.gguf"])
        assert isinstance(done.exception, AntiphonError)
        assert said in done.exception.message
    assert other.read_text() == "my notes\n"
    assert CliRunner().invoke(app, ["batch", "-i", str(requests), str(tiny)]).exit_code == 2


def test_two_batches_never_write_one_file(tmp_path):
    requests = write(tmp_path / "in.jsonl", [])
    with BatchFile(tmp_path / "out.jsonl", requests), pytest.raises(ConfigError, match="another batch"):
        BatchFile(tmp_path / "out.jsonl", requests)
    BatchFile(tmp_path / "out.jsonl", requests).__exit__(None, None, None)


# --- the engine


async def test_an_empty_file_and_a_poisonous_line(tmp_path, tiny: Path):
    empty = write(tmp_path / "in.jsonl", [b"", b" "])
    done = await answer(empty, tmp_path / "out.jsonl", tmp_path / "no model is needed")
    assert (done.done, done.failed, (tmp_path / "out.jsonl").read_bytes()) == (0, 0, b"")
    requests = write(tmp_path / "in.jsonl", [*prompts(3), line("poison", {"prompt": [77, 1]})])
    done = await answer(requests, tmp_path / "out.jsonl", tiny, fake=FakeSettings(fail_on=77))
    found = by_id(tmp_path / "out.jsonl")
    assert (done.done, done.failed, found["poison"]["status_code"]) == (4, 1, 500)
    again = await answer(requests, tmp_path / "out.jsonl", tmp_path / "no model is needed")
    assert (again.done, again.failed, again.kept) == (4, 1, 4)


async def test_an_engine_that_is_given_up_ends_the_batch_and_blames_no_line(tmp_path, tiny: Path, monkeypatch):
    requests, answers = write(tmp_path / "in.jsonl", prompts(50, max_tokens=300)), tmp_path / "out.jsonl"
    monkeypatch.setattr("antiphon.engine.client.EngineClient.is_ready", False)
    monkeypatch.setattr("antiphon.engine.client.EngineClient.generate_all", _refuse)
    with pytest.raises(AntiphonError):
        await answer(requests, answers, tiny)
    assert answers.read_bytes() == b""
    monkeypatch.undo()
    assert (await answer(requests, answers, tiny)).done == 50


def _refuse(self: Any, requests: Any, terms: Any = None, **_: Any) -> Any:
    from antiphon.errors import NotReady

    raise NotReady("The engine failed and was given up; the server's log says why.")


def test_engines_on_other_machines_are_refused(tmp_path):
    (tmp_path / "in.jsonl").write_text("")
    arguments = [
        "batch",
        str(tmp_path / "in.jsonl"),
        str(tmp_path / "out.jsonl"),
        "m.gguf",
        "--engines",
        "1,tcp://10.0.0.5",
    ]
    result = CliRunner().invoke(app, arguments)
    assert "cannot name other machines: that needs a server" in str(result.exception)
