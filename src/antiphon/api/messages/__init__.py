"""Anthropic's Messages API, `/v1/messages`: content blocks in, content blocks out."""
