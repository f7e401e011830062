"""The same names from ModelScope, through its own library and a server that speaks its API."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import modelscope_hub
import pytest
from fake_hub import unreachable
from fake_model_scope import FakeModelScope, fake_model_scope
from watches import Watch, get, refusal

CONTENT = hashlib.shake_256(b"noise").digest(300_000)
GGUF = {f"m-{kind}.gguf": kind.encode() + CONTENT for kind in ("Q4_0", "Q4_K_M", "Q8_0")}
FOLDER = {
    "config.json": b"{}",
    "tokenizer.json": b"{}" * 600,
    "model.safetensors": CONTENT,
    "pytorch_model.bin": b"pickles" + CONTENT,
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModelScope]:
    """What MODELSCOPE_ENDPOINT names, and an empty cache."""
    with fake_model_scope() as running:
        config = modelscope_hub.HubConfig(endpoint=running.url, cache_dir=tmp_path / "cache", config_dir=tmp_path)
        modelscope_hub.set_default_config(config)
        yield running
        modelscope_hub.set_default_config(modelscope_hub.HubConfig())


def test_a_gguf_file_by_its_type_and_nothing_else(hub: FakeModelScope):
    hub.repositories["org/m-GGUF"] = GGUF
    watch = Watch()
    pulled = get("ms://org/m-GGUF:q8_0", watch)
    assert pulled.name == "m-Q8_0"
    assert pulled.path.read_bytes() == GGUF["m-Q8_0.gguf"]
    assert watch.came == watch.missing == len(GGUF["m-Q8_0.gguf"])


def test_of_a_folder_only_what_is_read_and_only_once(hub: FakeModelScope):
    hub.repositories["org/m"] = FOLDER
    pulled = get("ms://org/m")
    assert pulled.name == "m"
    assert {path.name for path in pulled.path.iterdir()} == set(FOLDER) - {"pytorch_model.bin"}
    hub.sent.clear()
    assert get("ms://org/m") == pulled
    assert hub.sent == []


def test_a_cut_connection_goes_on_from_where_it_was(hub: FakeModelScope):
    hub.repositories["org/m-GGUF"] = GGUF
    hub.cuts = [100_000]
    assert get("ms://org/m-GGUF:Q4_0").path.read_bytes() == GGUF["m-Q4_0.gguf"]
    assert [wanted for _, wanted in hub.sent if wanted] == ["bytes=100000-"]


def test_refusals_say_what_to_do(hub: FakeModelScope):
    hub.repositories["org/m-GGUF"] = GGUF
    assert "has no org/other" in refusal("ms://org/other")
    assert "no revision 'v2'" in refusal("ms://org/m-GGUF@v2")
    hub.private.add("org/m-GGUF")
    assert "MODELSCOPE_API_TOKEN" in refusal("ms://org/m-GGUF")


def test_a_wrong_checksum_leaves_nothing_behind(hub: FakeModelScope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0.0)
    hub.repositories["org/m-GGUF"] = GGUF
    hub.instead["m-Q4_0.gguf"] = bytes(len(GGUF["m-Q4_0.gguf"]))
    assert "checksum" in refusal("ms://org/m-GGUF:Q4_0")
    assert not list(tmp_path.rglob("*.gguf*"))


@pytest.mark.parametrize("verify", [False, True])
def test_a_damaged_file_is_downloaded_again(hub: FakeModelScope, verify: bool):
    hub.repositories["org/m-GGUF"] = GGUF
    path = get("ms://org/m-GGUF:Q4_0").path
    path.write_bytes(bytes(len(GGUF["m-Q4_0.gguf"])) if verify else b"short")
    watch = Watch()
    assert get("ms://org/m-GGUF:Q4_0", watch, verify=verify).path.read_bytes() == GGUF["m-Q4_0.gguf"]
    assert "m-Q4_0.gguf is damaged" in watch.notes[0]


def test_offline_and_out_of_reach(hub: FakeModelScope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["org/m-GGUF"] = GGUF
    assert "offline" in refusal("ms://org/m-GGUF:Q4_0", offline=True)
    pulled = get("ms://org/m-GGUF:Q4_0")
    hub.sent.clear()
    assert get("ms://org/m-GGUF:Q4_0", offline=True) == pulled
    config = modelscope_hub.HubConfig(endpoint=unreachable(), cache_dir=tmp_path / "cache", config_dir=tmp_path)
    modelscope_hub.set_default_config(config)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's own tries
    watch = Watch()
    assert get("ms://org/m-GGUF:Q4_0", watch) == pulled
    assert "cannot reach ModelScope" in watch.notes[0]
    assert hub.sent == []


def test_without_the_library_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    monkeypatch.delitem(sys.modules, "antiphon.hub.model_scope", raising=False)
    assert "pip install 'antiphon[modelscope]'" in refusal("ms://org/m")
