"""Limits on the number and length of request fields."""

from __future__ import annotations

MAX_CHOICES = 16  # `n`
MAX_PROMPTS = 64  # in one completions request
MAX_SEQUENCES = 64  # prompts times choices
MAX_STOPS = 16
MAX_STOP_LENGTH = 256  # characters of one stop string
MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIASES = 1024
MAX_LOGPROBS = 20
MAX_CACHE_SALT = 256  # characters
MAX_MESSAGES = 4096
MAX_GRAMMAR_CHOICES = 1024  # texts in `structured_outputs.choice`
MAX_TOOLS = 128  # OpenAI's
MAX_BATCH = 1024  # items of /generate-batch
MAX_METADATA = 16  # entries; OpenAI's
