"""Majority vote: counts, ties, choices that abstain, and the reply's extra field."""

from __future__ import annotations

import pytest
from http_server import serving
from tiny_checkpoints import R1_TEMPLATE

from antiphon.api.vote import vote


def boxed(*answers: str) -> list[str]:
    return [f"It is $\\boxed{{{answer}}}$." for answer in answers]


@pytest.mark.parametrize(
    ("answers", "winner", "counts"),
    [
        (("1", "2", "2"), "2", {"1": 1, "2": 2}),
        (("2", "1", "1", "2"), "2", {"2": 2, "1": 2}),
        (("x + 1", "x+1", "$x +1$."), "x + 1", {"x + 1": 3}),
        (("1/2", "0.5", "0.5"), "0.5", {"1/2": 1, "0.5": 2}),
        ((" ", "", "3"), "3", {"3": 1}),
    ],
)
def test_the_most_frequent_wins_and_among_equals_the_earliest(answers, winner, counts):
    result = vote(boxed(*answers))
    assert (result.answer, result.count, result.counts) == (winner, counts[winner], counts)


def test_who_has_no_box_has_no_vote():
    result = vote(["I do not know.", *boxed("7"), "\\boxed{8"])
    assert (result.answer, result.count, result.counts) == ("7", 1, {"7": 1})
    nobody = vote(["", "no box"])
    assert (nobody.answer, nobody.count, nobody.counts) == (None, 0, {})


async def test_the_reply(tmp_path):
    script = "Is it \\boxed{1}?\n</think>\n\nIt is \\boxed{ 42. }<｜end▁of▁sentence｜>"
    async with serving(tmp_path, template=R1_TEMPLATE, script=script) as server:
        reply = (await server.chat(n=3, vote=True)).json()
        assert reply["vote"] == {"answer": "42", "count": 3, "counts": {"42": 3}}
        assert len(reply["choices"]) == 3
        assert "vote" not in (await server.chat(n=3)).json()
        client = await server.openai.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], n=2, extra_body={"vote": True}
        )
        assert client.model_extra["vote"]["count"] == 2
