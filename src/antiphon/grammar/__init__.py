"""What an answer must look like: grammars of every kind, checked by the front, followed token by token by the engine.

`lark` translates every kind into one language, `matcher` follows it through a vocabulary (both with the library
llguidance). `checker` refuses grammars that are wrong or too large before the engine gets them, in a process of its own
(`check_worker`).
"""

from antiphon.grammar.nouns import GrammarError, Vocabulary

__all__ = ["GrammarError", "Vocabulary"]
