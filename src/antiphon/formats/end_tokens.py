"""Which tokens end an answer: every one that a checkpoint names, and those whose text says so.

Checkpoints are often wrong about this: a fine-tuned model ends its turns with `<|im_end|>`, and its file still names
`<|endoftext|>` alone. The texts are those that llama.cpp goes by (src/llama-vocab.cpp, `special_eog_ids`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# In these models' alphabets no other text looks so, whatever type the file gives the token.
UNMISTAKABLE = frozenset(
    {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|endoftext|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "<｜end▁of▁sentence｜>",
        "<|fim_pad|>",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<|file_sep|>",
    }
)
# These may be words of a text, so they count only as control tokens.
END_TEXTS = UNMISTAKABLE | {
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "</s>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
}


def end_token_ids(named: Iterable[int | None], control: Mapping[str, int], num_rows: int) -> tuple[int, ...]:
    """All ids that end an answer: those that the checkpoint names, in its order, then those whose text says so.

    `control`: text → id of its control tokens. Ids that the model has no row for cannot be drawn, so they end nothing.
    """
    by_text = sorted(id for text, id in control.items() if text in END_TEXTS)
    return tuple(dict.fromkeys(id for id in (*named, *by_text) if id is not None and id < num_rows))
