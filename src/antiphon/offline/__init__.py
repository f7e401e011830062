"""The engine without a server: `antiphon.Engine` for programs, and files of requests for `antiphon batch`.

`engine` is the class that programs see, over `background` (an event loop in a thread), `calls` (a call's life) and
`answers` (what comes back); `running` is the engine itself. Requests are understood, validated and begun by the same
functions as those that come over HTTP, so an answer here is the server's answer. A leaf for everybody but `commands`.
"""
