"""Configurations of reverse proxies for several servers: `antiphon proxy-config`.

`settings` has what can be set, `nginx` and `haproxy` each write one complete file, `replies` has the errors that a
proxy answers itself, `addresses` reads addresses. Everything in a file comes from validated settings, so no flag can
add a directive. Nothing that serves imports this package.
"""
