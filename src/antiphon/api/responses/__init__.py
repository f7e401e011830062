"""OpenAI's Responses API, `/v1/responses`: items in, items out, conversations kept in memory for those who want it."""
