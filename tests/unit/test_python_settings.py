"""The keywords of `antiphon.Engine`: all that the engine can be told, by the names of the command line, documented."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from antiphon.commands.serve import serve
from antiphon.config import EngineConfig, ServerConfig
from antiphon.offline.settings import ALIASES, configs, setting_names

DOCUMENT = (Path(__file__).parents[2] / "docs" / "python.md").read_text()


def test_every_setting_is_documented_and_an_option_of_serve():
    listed, _, aliases = DOCUMENT.partition("same defaults:\n")[2].partition("The names of")
    assert re.findall(r"`(\w+)`", listed) == sorted(setting_names())
    assert set(re.findall(r"`(\w+)`", aliases)) == set(ALIASES)
    assert set(setting_names()) <= set(inspect.signature(serve).parameters)


def test_settings_reach_the_engine_and_its_front():
    engine, front = configs("m", {"max_model_len": 9, "n_threads": 2, "max_num_seqs": 3, "hang_timeout": 3})
    assert engine == EngineConfig("m", context_length=9, threads=2, max_num_sequences=3)
    assert front.hang_timeout == 3.0
    engine, front = configs("m", {"model_name": "x"})
    assert engine == EngineConfig("m")
    assert (front.model_name, front.hang_timeout) == ("x", ServerConfig().hang_timeout)
