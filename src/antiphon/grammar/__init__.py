"""What an answer must look like: grammars of every kind, checked by the front, followed token by token by the engine.

`lark` says every kind in one language, `matcher` follows it through a vocabulary (both by the library llguidance),
`checker` refuses bad and monstrous ones before the engine hears of them, in a process of its own (`check_worker`).
"""

from antiphon.grammar.nouns import GrammarError, Vocabulary

__all__ = ["GrammarError", "Vocabulary"]
