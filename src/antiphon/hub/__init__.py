"""Models by name, from Hugging Face or ModelScope: what a name means, which files are needed, how they get here.

`names` reads what was typed, `selection` picks files out of a listing, `hugging_face` and `model_scope` talk to the
hubs, `pull` puts them in a row. A leaf: it knows no format and no command, and nothing that serves knows it. The hubs'
libraries are imported only when they are needed.
"""

from antiphon.hub.names import ModelName, near_names, parse_name
from antiphon.hub.pull import Pulled, pull
from antiphon.hub.repository import Watcher

__all__ = ["ModelName", "Pulled", "Watcher", "near_names", "parse_name", "pull"]
