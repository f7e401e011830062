"""Looks for what keeps a machine, a model or a running server from working well: `antiphon doctor`.

Each subject has a file of checks. A check is a function that returns findings; `examination` runs them one by one, so
that one that fails or hangs is a finding of its own. Nothing here changes anything, and nothing that serves imports it.
"""
