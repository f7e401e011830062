"""A load test for locust, of any server with OpenAI's chat completions. It needs nothing but locust.

    pip install locust
    locust -f locustfile.py --headless --host http://127.0.0.1:8000 --csv results

Users stream their answers. From 1 user the load grows to 20 in 60 seconds and stays there for 120 (`--ramp 1..20
--ramp-seconds 60 --hold-seconds 120`). Locust's statistics have these entries for each kind of prompt, in milliseconds:

    first token          from sending the request to the first piece of the thought or the answer
    first answer token   … to the first piece of the answer after the thought
    time per token       mean time between two tokens of one answer
    whole answer         from sending the request to its end; its failures are all that went wrong
    refused              a 429 or 503 with Retry-After: no failure. The user waits for that long and sends it again

An answer whose stream ends without a finish reason was cut, which is a failure. Every option can also come from the
environment: `--ramp` from LOCUST_RAMP.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from itertools import count

import gevent
import requests
from locust import LoadTestShape, User, events, task
from locust.exception import StopUser
from locust.runners import STATE_STOPPING, LocalRunner
from locust.stats import CSV_STATS_INTERVAL_SEC

FIRST_TOKEN, FIRST_ANSWER_TOKEN, TIME_PER_TOKEN = "first token", "first answer token", "time per token"
WHOLE_ANSWER, REFUSED = "whole answer", "refused"
REFUSALS = (429, 503)
LAST_ANSWERS_SECONDS = 120.0  # for running answers at the end, unless --stop-timeout is given

logger = logging.getLogger(__name__)


@events.init_command_line_parser.add_listener
def add_options(parser):
    """The options of this file, beside locust's own."""

    def add(name, help, **options):
        parser.add_argument(name, env_var=f"LOCUST_{name[2:].replace('-', '_').upper()}", help=help, **options)

    ramp = "Users at the start and at the end of the ramp, as 1..20. Equal numbers: no ramp."
    add("--ramp", ramp, type=_ramp, default="1..20")
    add("--ramp-seconds", "Duration of the ramp.", type=float, default=60.0)
    add("--hold-seconds", "Time for which all users stay after the ramp.", type=float, default=120.0)
    add("--think-seconds", "Mean time that a user waits between two requests.", type=float, default=2.0)
    add("--model", "Name of the model. Default: the first that the server lists.", default="")
    add("--api-key", "Key that requests carry.", default="", is_secret=True)
    add("--max-tokens", "Longest answer, in tokens, thought included.", type=int, default=512)
    add("--document-words", "Length of long documents.", type=int, default=1500)
    add("--seed", "Of the prompts, their order and the waiting times.", type=int, default=1)
    add("--read-timeout", "Seconds of silence after which an answer has failed.", type=float, default=300.0)
    add("--check", "At the end compare the counts with /metrics of an Antiphon server.", action="store_true")


def _ramp(text):
    """The text, if it is two numbers of users."""
    if not re.fullmatch(r"[1-9]\d*\.\.[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1..20")
    return text


@events.init.add_listener
def need_a_host(environment, **_):
    """End at once without an address; with its web page, locust asks for it there."""
    options = environment.parsed_options
    if options is not None and options.headless and not environment.host:
        sys.exit("error: --host is missing: the server's address, such as http://127.0.0.1:8000")


# --- the load


class Gradient(LoadTestShape):
    """The number of users over time: a ramp, and then a plateau."""

    def tick(self):
        """The number of users now, and how many may start in a second; None at the end of the test."""
        options = self.runner.environment.parsed_options
        first, last = (int(number) for number in options.ramp.split(".."))
        now, ramp = self.get_run_time(), options.ramp_seconds
        if now >= ramp + options.hold_seconds:
            return None
        users = last if now >= ramp else first + int((last - first) * now / ramp)
        return users, max(1, abs(last - first))


class Person(User):
    """Somebody who talks to the server: asks, reads the answer as it comes, thinks, and asks again."""

    numbers = count()

    def __init__(self, environment):
        super().__init__(environment)
        options = environment.parsed_options
        self.options = options
        self.random = random.Random(options.seed * 1_000_003 + next(self.numbers))  # noqa: S311
        self.session = requests.Session()
        if options.api_key:
            self.session.headers["Authorization"] = f"Bearer {options.api_key}"
        self.base = environment.host.rstrip("/").removesuffix("/v1")

    def wait_time(self):
        """Seconds until the next request."""
        mean = self.options.think_seconds
        return self.random.expovariate(1 / mean) if mean > 0 else 0.0

    def on_start(self):
        """Find out the model's name."""
        self.model = self.options.model or _first_model(self.session, self.base)

    def on_stop(self):
        """Close the connections."""
        self.session.close()

    @task(4)
    def short_chat(self):
        """A short question, with a short answer."""
        self.ask("short chat", [_user(self.random.choice(QUESTIONS))])

    @task(3)
    def shared_system_prompt(self):
        """A question below a long system prompt that all users share, so that the prefix cache can help."""
        self.ask("shared system prompt", [_system(SYSTEM_PROMPT), _user(self.random.choice(QUESTIONS))])

    @task(1)
    def long_document(self):
        """A question on a long document that nobody else has sent."""
        document = " ".join(self.random.choices(WORDS, k=self.options.document_words))
        self.ask("long document", [_user(f"{document}\n\nSummarize the text above in three sentences.")])

    @task(2)
    def mathematics(self):
        """A problem that a reasoning model thinks about."""
        a, b, c = (self.random.randint(12, 98) for _ in range(3))
        problem = f"A train travels {a} km in {b} minutes, then waits {c} minutes. What is its mean speed in km/h?"
        self.ask("mathematics", [_user(f"{problem} Reason step by step, and put the final answer within \\boxed{{}}.")])

    def ask(self, name, messages):
        """Send one request, again after each refusal with Retry-After, and record what comes."""
        for num_retries in count():
            wait = self._ask_once(name, messages, num_retries)
            if wait is None:
                return
            if self.environment.runner.state == STATE_STOPPING:
                raise StopUser
            gevent.sleep(wait)

    def _ask_once(self, name, messages, num_retries):
        """One try. Returns the seconds to wait until the next one; None if there is none."""
        body = {"model": self.model, "messages": messages, "max_tokens": self.options.max_tokens, "stream": True}
        body["stream_options"] = {"include_usage": True}
        headers = {"x-stainless-retry-count": str(num_retries)}  # as OpenAI's clients count
        answer = Answer(time.perf_counter())
        COUNTS.num_sent += 1
        try:
            with self.session.post(
                f"{self.base}/v1/chat/completions",
                json=body,
                headers=headers,
                stream=True,
                timeout=(10, self.options.read_timeout),
            ) as response:
                if response.status_code in REFUSALS and (wait := _retry_after(response.headers)) is not None:
                    self._record(REFUSED, name, answer.age)
                    return wait
                if response.status_code != 200:
                    raise Failure(f"HTTP {response.status_code}: {response.text[:200]}")
                for payload in _payloads(response):
                    answer.add(payload)
                answer.check()
        except (Failure, requests.RequestException) as error:
            self._record(WHOLE_ANSWER, name, answer.age, answer.num_bytes, error)
            return None
        except BaseException:  # the test has ended, and so has this user
            COUNTS.num_left += 1
            raise
        self._record_answer(name, answer)
        return None

    def _record_answer(self, name, answer):
        self._record(FIRST_TOKEN, name, answer.first_token_after)
        if answer.first_answer_after is not None:
            self._record(FIRST_ANSWER_TOKEN, name, answer.first_answer_after)
        if answer.time_per_token is not None:
            self._record(TIME_PER_TOKEN, name, answer.time_per_token)
        self._record(WHOLE_ANSWER, name, answer.ended_after, answer.num_bytes)

    def _record(self, kind, name, seconds, length=0, exception=None):
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=1000 * seconds,
            response_length=length,
            exception=exception,
            context={},
        )


# --- answers


class Failure(Exception):
    """Why a request failed."""


class Answer:
    """A streamed answer as it comes; times are in seconds since it was asked for."""

    def __init__(self, asked_at):
        self._asked_at = asked_at
        self._last_token_at = None
        self._content = ""
        self._thought_in_content = False  # the server does not separate the thought from the answer
        self._finish_reason = None
        self._error = None
        self._num_chunks = 0
        self._num_tokens = None  # by the server's count
        self.num_bytes = 0
        self.first_token_after = None
        self.first_answer_after = None
        self.ended_after = None

    @property
    def age(self):
        """Seconds since it was asked for."""
        return time.perf_counter() - self._asked_at

    @property
    def time_per_token(self):
        """Mean time between two tokens; None if there are fewer than two."""
        tokens = self._num_tokens or self._num_chunks
        if tokens < 2 or self.first_token_after is None:
            return None
        return (self._last_token_at - self.first_token_after) / (tokens - 1)

    def add(self, payload):
        """Take the next event of the stream."""
        self.num_bytes += len(payload)
        if payload == "[DONE]":
            return
        chunk = json.loads(payload)
        self._error = self._error or chunk.get("error")
        if usage := chunk.get("usage"):
            self._num_tokens = usage.get("completion_tokens")
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            self._take(delta.get("reasoning_content") or delta.get("reasoning") or "", delta.get("content") or "")
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def check(self):
        """The stream has ended. Raises Failure if it was cut or the server reported an error."""
        self.ended_after = self.age
        if self._error:
            raise Failure(f"error in the stream: {self._error.get('message', self._error)}")
        if self._finish_reason is None:
            raise Failure("the stream was cut: it ended without a finish reason")
        if self.first_token_after is None:
            raise Failure("the answer is empty")

    def _take(self, thought, content):
        if not thought and not content:
            return
        now = self.age
        self._num_chunks += 1
        self._last_token_at = now
        self.first_token_after = now if self.first_token_after is None else self.first_token_after
        if not content:
            return
        self._content += content
        if not self._thought_in_content and "</think>" in self._content:
            self._thought_in_content = True
            self.first_answer_after = None  # what came until now was the thought
            content = self._content.partition("</think>")[2]
        if self.first_answer_after is None and content.strip():
            self.first_answer_after = now


def _payloads(response) -> Iterator[str]:
    """The data of each event of a stream."""
    for line in response.iter_lines(chunk_size=None):
        if line.startswith(b"data:"):
            yield line[5:].strip().decode()


def _retry_after(headers):
    """The seconds that a refusal asks to wait; None if it does not say."""
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())


def _first_model(session, base):
    answer = session.get(f"{base}/v1/models", timeout=30)
    answer.raise_for_status()
    return answer.json()["data"][0]["id"]


def _user(text):
    return {"role": "user", "content": text}


def _system(text):
    return {"role": "system", "content": text}


# --- the end


class Counts:
    """What locust's statistics do not have, of this process."""

    num_sent = 0  # requests
    num_left = 0  # of these, given up because the test ended
    before: dict[str, float] | None = None  # the server's counts at the start


COUNTS = Counts()


@events.init.add_listener
def let_answers_finish(environment, **_):
    """Without --stop-timeout, locust would cut all running answers at the end."""
    environment.stop_timeout = environment.stop_timeout or LAST_ANSWERS_SECONDS


@events.test_start.add_listener
def note_counts(environment, **_):
    """Remember the server's counts."""
    if environment.parsed_options.check:
        COUNTS.num_sent = COUNTS.num_left = 0
        COUNTS.before = _server_counts(environment)


@events.quitting.add_listener
def compare_counts(environment, **_):
    """With --check: the exit status is 2 if the server has counted something else, or has no counts."""
    if not environment.parsed_options.check:
        return
    if COUNTS.before is None:
        logger.error("--check needs a server with Antiphon's metrics at /metrics")
        environment.process_exit_code = 2
        return
    if not isinstance(environment.runner, LocalRunner):
        logger.warning("--check compares nothing in a distributed test")
        return
    after = _server_counts(environment) or {}
    received, refused, finished = (
        after.get(name, 0) - COUNTS.before[name] for name in ("received", "refused", "finished")
    )
    entries = environment.stats.entries
    whole = sum(entry.num_requests - entry.num_failures for (_, kind), entry in entries.items() if kind == WHOLE_ANSWER)
    turned_away = sum(entry.num_requests for (_, kind), entry in entries.items() if kind == REFUSED)
    logger.info(
        "counts here and at the server: sent %d, received %d; answers %d, finished %d; refused %d, %d; left %d",
        *(COUNTS.num_sent, received, whole, finished, turned_away, refused, COUNTS.num_left),
    )
    # Of those that were left, the server may have finished or refused some.
    agrees = COUNTS.num_sent - COUNTS.num_left <= received <= COUNTS.num_sent
    agrees = agrees and whole <= finished <= whole + COUNTS.num_left
    if not (agrees and turned_away <= refused):
        logger.error("the server has counted something else")
        environment.process_exit_code = 2


@events.quitting.add_listener
def complete_csv(environment, **_):
    """Locust writes its CSV files once a second, and closes them without the last second."""
    if environment.parsed_options.csv_prefix:
        gevent.sleep(CSV_STATS_INTERVAL_SEC + 0.2)


def _server_counts(environment):
    """The server's counts of chat requests; None if it is not an Antiphon server."""
    options = environment.parsed_options
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    text = requests.get(f"{environment.host.rstrip('/').removesuffix('/v1')}/metrics", headers=headers, timeout=30).text
    found = {}
    for name in ("received", "refused", "finished"):
        metric = f"antiphon_requests_{name}_total{{"
        lines = [line for line in text.splitlines() if line.startswith(metric) and 'endpoint="chat"' in line]
        if not lines:
            return None
        found[name] = sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return found


# --- prompts

QUESTIONS = (
    "Why is the sky blue?",
    "What is the difference between a list and a tuple in Python?",
    "Name three rivers in Europe, and one city on each.",
    "How does a bicycle stay upright?",
    "Translate 'Where is the next pharmacy?' into French and Chinese.",
    "Give me a recipe for pancakes without milk.",
    "What did the Romans use concrete for?",
    "Write a polite reply to an invitation that I have to decline.",
)
SYSTEM_PROMPT = (
    "You are the assistant of a public library. Answer in the language of the question, in at most five sentences. "
    "Be exact about opening hours: Monday to Friday from nine to seven, Saturday from ten to four, closed on Sunday. "
    "Books are lent for four weeks, films and games for one; each may be renewed twice unless it is reserved. "
    "A card is free for children, and costs twelve euros a year for adults and six for students. "
    "If you do not know something, say so and name the desk on the ground floor, which can help. "
)
WORDS = (
    *("harbour", "council", "report", "season", "water", "level", "market", "bridge", "engineer", "summer", "price"),
    *("village", "record", "wind", "station", "school", "field", "letter", "garden", "winter", "machine", "paper"),
    *("the", "of", "and", "in", "to", "with", "after", "before", "found", "built", "carried", "measured", "opened"),
)
