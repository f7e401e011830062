"""The engine without a server: `antiphon.Engine` for programs, and files of requests for `antiphon batch`.

`engine` has the public class. It uses `background` (an event loop in a thread), `calls` (one call from start to end)
and `answers` (the results); `running` starts the engine itself. Requests are validated and run by the same functions as
those that come over HTTP, so an answer here is the server's answer. Only `commands` imports this package.
"""
