"""`POST /tokenize` and `POST /detokenize`, as vLLM has them.

The engine is not asked, so these are no requests in the metrics.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from antiphon.api.logprobs import spelled
from antiphon.api.sampling import check_token_ids
from antiphon.api.shapes import encoder
from antiphon.api.tokens import DetokenizeRequest, Text, TokenizeRequest, Tokens, token_ids_of, tokenizer_info
from antiphon.http.context import context_of
from antiphon.http.openapi import json_body
from antiphon.http.reply import read

router = APIRouter()


@router.post("/tokenize", openapi_extra=json_body(TokenizeRequest))
async def tokenize(request: Request) -> Response:
    """The token ids of a prompt, or of a conversation."""
    context = context_of(request)
    facts = context.facts()
    body = await read(request, TokenizeRequest)
    context.check_model(body.model)
    token_ids = await token_ids_of(context, body)
    tokenizer = context.model.text.tokenizer
    strings = [spelled(tokenizer, token_id) for token_id in token_ids] if body.return_token_strs else None
    answer = Tokens(len(token_ids), facts.context_length, token_ids, strings)
    return Response(encoder.encode(answer), media_type="application/json")


@router.post("/detokenize", openapi_extra=json_body(DetokenizeRequest))
async def detokenize(request: Request) -> Response:
    """The text that token ids spell, control tokens by their names."""
    context = context_of(request)
    facts = context.facts()
    body = await read(request, DetokenizeRequest)
    context.check_model(body.model)
    check_token_ids(body.tokens, facts.vocab_size, "tokens")
    tokenizer = context.model.text.tokenizer
    text = b"".join(tokenizer.id_to_bytes(token_id) for token_id in body.tokens).decode("utf-8", "replace")
    return Response(encoder.encode(Text(text)), media_type="application/json")


@router.get("/tokenizer_info")
async def get_tokenizer_info(request: Request) -> Response:
    """The tokenizer's special tokens and the chat template."""
    return Response(encoder.encode(tokenizer_info(context_of(request))), media_type="application/json")
