"""The process that checks grammars, and nothing else: they come from strangers, and may need any amount of work.

Each is translated, compiled and asked for its first tokens in a child of its own, forked with the vocabulary ready. The
kernel ends a child that has used up its time or memory, and nothing has to be started again.

Speaks JSON, one line each way: first {"tokens", "special_token_ids", "eos_token_ids", "time_limit"}, the tokens' bytes
as Latin-1, → {}; then, per grammar, {"kind", "text"} → {"lark"} or {"error"}, or {"stopped": true}, or
{"killed": true} where there was no child, or something else than a limit ended it. Run as a module by `checker`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

from antiphon.grammar.lark import is_lark, to_lark
from antiphon.grammar.matcher import MatcherFactory
from antiphon.grammar.messages import NOTHING_FITS, without_place
from antiphon.grammar.nouns import GrammarError, Vocabulary
from antiphon.parent_death import die_with_parent
from antiphon.request import Grammar, GrammarKind

MAX_MEMORY = 1 << 30  # bytes of address space
MAX_STACK = 4 << 20  # bytes; half of what the engine has, so that no recursion that passes here overflows there
WALL_SHARE = 20  # a child that waits for its turn on a busy machine gets so many times its limit by the clock


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    # Ctrl-C and a service manager's stop reach the whole process group; the front alone decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_STACK, (MAX_STACK, MAX_STACK))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    setup = json.loads(sys.stdin.readline())
    tokens = [token.encode("latin-1") for token in setup["tokens"]]
    factory = MatcherFactory(Vocabulary(tokens, setup["special_token_ids"], setup["eos_token_ids"]))
    _send({})
    for line in sys.stdin:
        _send(_check_in_a_child(factory, json.loads(line), setup["time_limit"]))


def _check_in_a_child(factory: MatcherFactory, question: dict[str, str], time_limit: float) -> dict[str, Any]:
    try:
        reading, writing = os.pipe()
        worker, child = os.getpid(), os.fork()
    except OSError:  # the system has no descriptor or process for it
        return {"killed": True}
    if child == 0:
        die_with_parent(worker)
        # CPU time, so that a busy machine refuses no good grammar; the default action of both signals is to die.
        signal.setitimer(signal.ITIMER_PROF, time_limit)
        signal.setitimer(signal.ITIMER_REAL, time_limit * WALL_SHARE)
        with open(writing, "wb") as pipe:
            pipe.write(json.dumps(_check(factory, question)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:  # none of the limits kills like that
        return {"killed": True}
    reply: dict[str, Any] = json.loads(answer) if status == 0 else {"stopped": True}
    return reply


def _check(factory: MatcherFactory, question: dict[str, str]) -> dict[str, Any]:
    grammar = Grammar(GrammarKind(question["kind"]), question["text"])
    try:
        lark = to_lark(grammar)
        if not any(factory.compile(lark, to_follow=False).bitmask()):
            return {"error": NOTHING_FITS}
    except GrammarError as error:
        return {"error": str(error) if is_lark(grammar) else without_place(str(error))}
    except (MemoryError, RecursionError):
        return {"stopped": True}
    return {"lark": lark}


def _send(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
