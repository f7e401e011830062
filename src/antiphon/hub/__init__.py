"""Models by name, from Hugging Face or ModelScope: what a name means, which files are needed, how to download them.

`names` parses what was typed, `selection` picks files from a listing, `hugging_face` and `model_scope` implement
`repository` for their hubs, `pull` does one after the other. A leaf: it knows no format and no command, and nothing
that serves imports it. The hubs' libraries are imported only when they are needed.
"""

from antiphon.hub.names import ModelName, near_names, parse_name
from antiphon.hub.pull import Pulled, pull
from antiphon.hub.repository import Watcher

__all__ = ["ModelName", "Pulled", "Watcher", "near_names", "parse_name", "pull"]
