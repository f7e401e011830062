"""Everything the front needs for a model's text, built once at start from its checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.checkpoint import Checkpoint
from antiphon.errors import CheckpointError, InvalidRequest
from antiphon.grammar import Vocabulary
from antiphon.grammar.checker import GrammarChecker
from antiphon.request import Grammar
from antiphon.text.prompt import THINK_CLOSE, ChatPrompt, build_chat_prompt
from antiphon.text.stop_strings import StopStrings
from antiphon.text.stream import TextStream
from antiphon.text.template import ChatTemplate
from antiphon.text.thinking import ThoughtTokens
from antiphon.text.tokenizer import Tokenizer
from antiphon.text.tool_calls import ToolReading
from antiphon.text.tool_grammar import tool_call_grammar
from antiphon.text.tool_prompt import ToolStyle, tool_style


@dataclass(frozen=True, slots=True)
class TextModel:
    """Tokenizer and chat template of one model. Its methods block, so an event loop calls the long ones in a thread."""

    tokenizer: Tokenizer
    template: ChatTemplate | None  # None: the checkpoint has none that can be used, so the model cannot chat
    thought_tokens: ThoughtTokens | None  # None: the model does not write thoughts between think tags
    grammars: GrammarChecker  # of structured answers
    tool_style: ToolStyle | None = None  # None: the model cannot chat
    reads_tool_calls: bool = True  # whether requests may have tools
    template_fault: str | None = None  # why the checkpoint's template cannot be used

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, tool_call_parser: str = "auto") -> TextModel:
        """`tool_call_parser`: the shape of calls, `auto` for the template's own, `none` for no tools.

        A template that cannot be used is left out: completions need none.

        Raises CheckpointError, naming the file, when the tokenizer cannot be used.
        """
        try:
            tokenizer = Tokenizer(checkpoint.tokenizer)
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint.path}: {error.message}") from None
        source = checkpoint.chat_template or ""
        template, fault = _template(source, tokenizer) if source else (None, None)
        thinks = THINK_CLOSE in source or tokenizer.control_token_id(THINK_CLOSE) is not None
        return cls(
            tokenizer,
            template,
            ThoughtTokens(tokenizer) if thinks else None,
            GrammarChecker(_vocabulary(tokenizer)),
            tool_style(template, tool_call_parser) if template is not None else None,
            reads_tool_calls=tool_call_parser != "none",
            template_fault=fault,
        )

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary for grammars; None if no token ends a sequence, since no answer could be complete then."""
        return self.grammars.vocabulary

    @property
    def thinks(self) -> bool:
        """Whether the model writes a thought before its answer."""
        return self.thought_tokens is not None

    def encode_prompt(self, prompt: str, *, param: str = "prompt", limit: int | None = None) -> list[int]:
        """Tokens of a raw prompt, with control tokens recognized, and with the BOS in front that the model may want.
        `limit` as for `Tokenizer.encode`.

        Raises InvalidRequest for a lone surrogate.
        """
        ids = self.tokenizer.encode_with_control(prompt, param=param, limit=limit)
        bos = self.tokenizer.bos_token_id
        return [bos, *ids] if self.tokenizer.add_bos and bos is not None and ids[:1] != [bos] else ids

    def chat_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        close_thought: bool = False,
        **variables: Any,  # noqa: ANN401
    ) -> ChatPrompt:
        """Tokens of a conversation: `build_chat_prompt`. Raises InvalidRequest, also for a model without a template."""
        if self.template is None:
            reason = f"This model cannot chat: {self.template_fault or 'it has no chat template'}"
            raise InvalidRequest(f"{reason}. Send its prompt to /v1/completions.", param="messages")
        return build_chat_prompt(
            self.tokenizer,
            self.template,
            messages,
            tool_style=self.tool_style,
            close_thought=close_thought and self.thinks,
            **variables,
        )

    def stream(
        self,
        *,
        stop: StopStrings | Iterable[str] = (),
        starts_in_thought: bool = False,
        continues: bool = False,
        thinks: bool | None = None,
        min_tokens: int = 0,
        tools: ToolReading | None = None,
    ) -> TextStream:
        """The text of one choice. `thinks` is the model's own unless given: raw completions are not split."""
        return TextStream(
            self.tokenizer,
            stop=stop,
            starts_in_thought=starts_in_thought,
            continues=continues,
            thinks=self.thinks if thinks is None else thinks,
            min_tokens=min_tokens,
            tools=tools,
        )

    def tool_reading(
        self, names: Collection[str], *, several: bool, forced: bool = False, or_text: bool = False
    ) -> ToolReading:
        """How calls of these tools are read. Only for a model that can chat. `forced`: answers follow
        `tool_call_grammar`, which allows a text too if `or_text`.
        """
        assert self.tool_style is not None
        return ToolReading(self.tool_style.shape, names, several, forced, or_text)

    def tool_call_grammar(
        self, tools: Mapping[str, dict[str, Any]], *, several: bool, otherwise: str | None = None
    ) -> Grammar:
        """The grammar of an answer that calls some of these: `tool_grammar`. Only for a model that can chat."""
        assert self.tool_style is not None
        return tool_call_grammar(self.tool_style.shape, self.tokenizer, tools, several=several, otherwise=otherwise)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, as log-probabilities report them; those of a control token are its name."""
        return self.tokenizer.id_to_bytes(token_id)

    def helper_processes(self) -> dict[str, int]:
        """The processes that `close` stops, by name, and their ids; one may have ended."""
        found = {"renderer": self.template.process_id if self.template else None}
        found["grammar_checker"] = self.grammars.process_id
        return {name: pid for name, pid in found.items() if pid is not None}

    def close(self) -> None:
        """Stop the processes that render the template and check grammars."""
        self.grammars.close()
        if self.template is not None:
            self.template.close()


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary | None:
    if not tokenizer.eos_token_ids:
        return None
    ids = range(tokenizer.vocab_size)
    special = [id for id in ids if tokenizer.is_special(id)]
    return Vocabulary([tokenizer.id_to_bytes(id) for id in ids], special, list(tokenizer.eos_token_ids))


def _template(source: str, tokenizer: Tokenizer) -> tuple[ChatTemplate | None, str | None]:
    """The template, or why there is none."""

    def text(id: int | None) -> str:
        return "" if id is None else tokenizer.id_to_bytes(id).decode(errors="replace")

    eos = tokenizer.eos_token_ids[0] if tokenizer.eos_token_ids else None
    try:
        return ChatTemplate(source, bos_token=text(tokenizer.bos_token_id), eos_token=text(eos)), None
    except CheckpointError as error:
        return None, error.message
