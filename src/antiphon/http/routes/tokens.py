"""`POST /tokenize` and `POST /detokenize`, as in vLLM.

The engine is not involved, so the metrics do not count these requests.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from antiphon.api.shapes import encoder
from antiphon.api.tokens import DetokenizeRequest, TokenizeRequest, text_of, tokenizer_info, tokens_of
from antiphon.http.context import context_of
from antiphon.http.openapi import json_body
from antiphon.http.reply import read

router = APIRouter()


@router.post("/tokenize", openapi_extra=json_body(TokenizeRequest))
async def tokenize(request: Request) -> Response:
    """The token ids of a prompt, or of a conversation."""
    answer = await tokens_of(context_of(request), await read(request, TokenizeRequest))
    return Response(encoder.encode(answer), media_type="application/json")


@router.post("/detokenize", openapi_extra=json_body(DetokenizeRequest))
async def detokenize(request: Request) -> Response:
    """The text of token ids. Control tokens are written by their names."""
    answer = await text_of(context_of(request), await read(request, DetokenizeRequest))
    return Response(encoder.encode(answer), media_type="application/json")


@router.get("/tokenizer_info")
async def get_tokenizer_info(request: Request) -> Response:
    """The tokenizer's special tokens and the chat template."""
    return Response(encoder.encode(tokenizer_info(context_of(request))), media_type="application/json")
