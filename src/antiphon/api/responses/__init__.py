"""OpenAI's Responses API, `/v1/responses`: items in, items out; conversations can be stored in memory."""
