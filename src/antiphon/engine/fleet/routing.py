"""Which engine gets a request: the one that has most of its prompt in its prefix cache, unless it has too much to do.

Pure: knows no engines, requests or messages. `PrefixIndex` follows what one engine has probably computed, by blocks of
32 tokens, salted as the engine's prefix cache is. It is bounded and forgets what was used least recently, as the cache
does. It is a guess: a wrong one costs time, never correctness. `choose` applies *bounded load*: an engine that owes
more than 1.25 times its share, and one request, is passed over, so a popular prefix does not fill one engine while
others are idle. Its share follows its speed: engines may run on different machines and devices.

Source of bounded loads: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

PREFIX_BLOCK = 32  # tokens
_MAX_LOAD = 1.25  # of the mean
_PREFIX_SPEED = 0.5  # of the fastest; what a slower engine has of a prompt is not worth waiting for it
_DIGEST_BYTES = 8  # a collision only sends a request to an engine that does not have its prefix


def prefix_digests(token_ids: Sequence[int], salt: str = "") -> list[bytes]:
    """A digest for each prefix of whole blocks, the shortest first.

    The last token is never part of one, because it must always be computed.
    """
    digests: list[bytes] = []
    before = blake2b(salt.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
    num_blocks = max(0, len(token_ids) - 1) // PREFIX_BLOCK
    tokens = memoryview(array("I", token_ids[: num_blocks * PREFIX_BLOCK]))
    for start in range(0, num_blocks * PREFIX_BLOCK, PREFIX_BLOCK):
        before = blake2b(tokens[start : start + PREFIX_BLOCK], key=before, digest_size=_DIGEST_BYTES).digest()
        digests.append(before)
    return digests


class PrefixIndex:
    """The prefixes that one engine has probably computed."""

    def __init__(self, max_blocks: int) -> None:
        """`max_blocks`: how many blocks of 32 tokens the engine's KV cache holds."""
        self._max_blocks = max_blocks
        self._known: OrderedDict[bytes, None] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._known)

    def note(self, digests: Sequence[bytes]) -> None:
        """The engine computes these prefixes of one request."""
        for digest in reversed(digests):  # so that a chain loses its end first
            self._known[digest] = None
            self._known.move_to_end(digest)
        while len(self._known) > self._max_blocks:
            self._known.popitem(last=False)

    def num_matching(self, digests: Iterable[bytes]) -> int:
        """How many of a request's tokens the engine has probably computed."""
        count = 0
        for digest in digests:
            if digest not in self._known:
                break
            count += 1
        return count * PREFIX_BLOCK

    def clear(self) -> None:
        """The engine has lost everything that it computed."""
        self._known.clear()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that could get a request."""

    engine_id: int
    tokens_owed: float  # that it still has to compute for others
    num_matching: int = 0  # tokens of the request's prompt that it has probably computed
    speed: float = 1.0  # compared with the others'

    def busy_with(self, tokens: float) -> float:
        """How long it will be busy if it gets so many tokens more, in tokens of an engine of speed 1."""
        return (self.tokens_owed + tokens) / self.speed


def choose(candidates: Sequence[Candidate], tokens_of_request: float) -> int:
    """The id of the engine that gets a request of so many tokens; there must be a candidate.

    Among engines that have as much of the prompt, it is the one that would end first with this request: a slow engine
    with nothing to do gets it only if the fast ones would take longer. What a much slower engine has of the prompt does
    not count.
    """
    fastest = max(candidate.speed for candidate in candidates)
    # The load of each if all were equally busy.
    fair = sum(candidate.tokens_owed for candidate in candidates) / sum(candidate.speed for candidate in candidates)
    allowed = [each for each in candidates if each.tokens_owed <= _MAX_LOAD * fair * each.speed + tokens_of_request]
    best = max(
        allowed or candidates,  # rounding may put equal loads just above their mean
        key=lambda each: (
            each.num_matching if each.speed >= _PREFIX_SPEED * fastest else 0,
            -each.busy_with(tokens_of_request),
            -each.busy_with(0.0),  # if so few tokens are owed that adding them to the request's makes no difference
            each.speed,
            -each.engine_id,
        ),
    )
    return best.engine_id
