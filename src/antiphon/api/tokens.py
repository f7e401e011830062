"""`POST /tokenize` and `POST /detokenize`, as in vLLM: text or messages to token ids, and back.

`/tokenize` counts the same tokens as a generation with the same prompt or messages. The work is limited to a few times
the context length in tokens. The engine is not involved, so the metrics do not count these requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from annotated_types import MaxLen, MinLen
from pydantic import Field, model_validator

from antiphon.api.chat.request import ChatCompletionRequest, ChatMessage, ChatTemplateKwargs
from antiphon.api.chat.understand import prompt_of
from antiphon.api.context import Context
from antiphon.api.fields import TokenId
from antiphon.api.limits import MAX_MESSAGES
from antiphon.api.logprobs import spelled
from antiphon.api.sampling import check_token_ids
from antiphon.api.schema import Schema, conflict
from antiphon.api.threads import is_long
from antiphon.api.validation import validate
from antiphon.errors import ContextLengthExceeded, InvalidRequest

_OF_A_CHAT = {"messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"}


class TokenizeRequest(Schema):
    """The body of `POST /tokenize`: a `prompt` as in `/v1/completions`, or `messages` as in chat."""

    model: str | None = None
    prompt: str | None = None
    add_special_tokens: bool | None = Field(
        None, description="With prompt: add the token that begins a text. Default: true."
    )

    messages: Annotated[list[ChatMessage], MinLen(1), MaxLen(MAX_MESSAGES)] | None = None
    tools: Annotated[list[dict[str, Any]] | None, Field(description="As in chat.")] = None
    chat_template_kwargs: ChatTemplateKwargs | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    return_token_strs: bool | None = Field(None, description="Also return the text of each token.")

    @model_validator(mode="after")
    def _one_text(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise conflict("prompt", "Send either 'prompt' or 'messages'.")
        others = _OF_A_CHAT - {"messages"}
        strangers = others if self.messages is None else {"add_special_tokens"}
        for name in sorted(strangers):
            if getattr(self, name) is not None:
                goes_with = "messages" if self.messages is None else "prompt"
                raise conflict(name, f"'{name}' is only allowed with '{goes_with}'; leave it out.")
        return self


class DetokenizeRequest(Schema):
    """The body of `POST /detokenize`."""

    model: str | None = None
    tokens: list[TokenId]


class Tokens(msgspec.Struct):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Text(msgspec.Struct):
    prompt: str


class TokenizerInfo(msgspec.Struct):
    """A tokenizer's properties, as in vLLM. Evaluation harnesses request them before they use `/tokenize`."""

    tokenizer_class: str
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    add_bos_token: bool
    chat_template: str | None
    model_max_length: int


async def tokens_of(context: Context, body: TokenizeRequest) -> Tokens:
    """The answer to a request to tokenize. Raises AntiphonError if it is refused."""
    context.check_model(body.model)
    token_ids = await _token_ids_of(context, body)
    tokenizer, strings = context.model.text.tokenizer, None
    if body.return_token_strs:

        def spell_all() -> list[str]:
            return [spelled(tokenizer, token_id) for token_id in token_ids]

        strings = await context.if_long(is_long(token_ids), spell_all)
    return Tokens(len(token_ids), context.facts().context_length, token_ids, strings)


async def text_of(context: Context, body: DetokenizeRequest) -> Text:
    """The answer to a request to detokenize. Raises AntiphonError if it is refused."""
    context.check_model(body.model)
    most = context.countable_tokens
    if len(body.tokens) > most:
        raise InvalidRequest(f"'tokens' has {len(body.tokens):,} ids; the maximum is {most:,}.", param="tokens")
    check_token_ids(body.tokens, context.facts().vocab_size, "tokens")
    return Text(await context.if_long(is_long(body.tokens), context.model.text.tokenizer.text_of, body.tokens))


@contextmanager
def counting(context: Context) -> Iterator[int]:
    """The limit for counting a text's tokens. A longer text raises an InvalidRequest that says so."""
    most = context.countable_tokens
    try:
        yield most + 1
    except ContextLengthExceeded as error:
        message = f"The text has more than {most:,} tokens, the maximum for counting; count it in parts."
        too_many = InvalidRequest(message, param=error.param)
        too_many.code = error.code
        raise too_many from None


async def _token_ids_of(context: Context, body: TokenizeRequest) -> list[int]:
    with counting(context) as limit:
        return await _counted(context, body, limit)


async def _counted(context: Context, body: TokenizeRequest, limit: int) -> list[int]:
    if body.prompt is not None:
        (token_ids,) = await context.encode(
            [body.prompt], add_special_tokens=body.add_special_tokens is not False, limit=limit
        )
        return token_ids
    chat = await context.if_long(is_long(body.messages, body.tools), _as_chat, body)
    return (await prompt_of(context, chat, limit=limit)).token_ids


def _as_chat(body: TokenizeRequest) -> ChatCompletionRequest:
    return validate(ChatCompletionRequest, body.model_dump(include=_OF_A_CHAT, exclude_none=True))


def tokenizer_info(context: Context) -> TokenizerInfo:
    """The served model's tokenizer. Raises NotReady."""
    text = context.model.text
    tokenizer = text.tokenizer
    ends = sorted(tokenizer.eos_token_ids)
    bos = None if tokenizer.bos_token_id is None else spelled(tokenizer, tokenizer.bos_token_id)
    eos = spelled(tokenizer, ends[0]) if ends else None
    return TokenizerInfo(
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,  # not used here, but clients expect a name
        add_bos_token=tokenizer.add_bos,
        chat_template=text.template.source if text.template else None,
        model_max_length=context.facts().context_length,
    )
