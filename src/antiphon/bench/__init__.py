"""Load tests of any server that speaks OpenAI's API: `antiphon bench`.

An ordinary HTTP client. It knows nothing of how the server works and imports nothing of what serves; it compares what
it sees from outside with what the server tells in `/metrics`.
"""
