"""Refuses requests to generate while there is too much work for any of them, before their bodies are decoded.

A refusal must cost little, or refusing many requests would slow down those that were accepted. Decoding, validating,
rendering and tokenizing a long conversation takes tens of milliseconds; this takes one.
"""

from __future__ import annotations

from fastapi import Request

from antiphon.errors import Overloaded
from antiphon.http.context import body_size, context_of
from antiphon.request import Arrival


def refuse_early(request: Request, *, may_be_detached: bool = False) -> None:
    """Refuse a request, whose body has been read, if it would be refused whatever its fields say.

    `may_be_detached`: whether a field can ask that it continues without its client.

    Raises:
        Overloaded: there is too much work.
        InvalidRequest: a header is not valid.
    """
    context = context_of(request)
    arrival = Arrival(
        num_bytes=body_size(request),
        fairness_id=context.fairness_id,
        fairness_weight=context.fairness_weight,
        may_set_priority=context.settings.scheduling_policy == "priority",
    )
    terms = context.deadlines.longest(may_be_detached=may_be_detached)
    try:
        context.engine.check_early(arrival, terms)
    except Overloaded as error:
        context.degrading.note_prediction(terms, error.predicted_wait)
        raise
