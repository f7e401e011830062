"""The serving context of an HTTP request, and the account of what it asks for."""

from __future__ import annotations

from fastapi import Request

from antiphon.api.context import Context
from antiphon.http.edge.authentication import key_name
from antiphon.metrics import RequestAccount


def context_of(request: Request) -> Context:
    """The context that serves this request."""
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


def account_of(request: Request, endpoint: str) -> RequestAccount:
    """Open the account of a generation that `request` asks for; the access log reports its outcome."""
    account = context_of(request).metrics.request(endpoint, key_name(request.scope))
    request.scope.setdefault("state", {}).setdefault("accounts", []).append(account)
    return account
