"""Pulling from a hub over real HTTP: what is downloaded, what is checked, and how it goes on after faults."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub, sha256, unreachable
from huggingface_hub import constants, try_to_load_from_cache
from watches import Watch, get, refusal

CONTENT = hashlib.shake_256(b"noise").digest(300_000)
GGUF = {f"m-{kind}.gguf": kind.encode() + CONTENT for kind in ("Q4_0", "Q4_K_M", "Q8_0")}
FOLDER = {
    "config.json": b"{}",
    "tokenizer.json": b"{}" * 600,
    "model-00001-of-00002.safetensors": b"1" + CONTENT,
    "model-00002-of-00002.safetensors": b"2" + CONTENT,
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "generation_config.json": b"{}",
    "pytorch_model.bin": b"pickles" + CONTENT,
    "modeling_own.py": b"raise SystemExit",
    "original/consolidated.00.pth": CONTENT,
}


def test_a_gguf_file_by_its_type_and_nothing_else(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    watch = Watch()
    pulled = get("org/m-GGUF:q8_0", watch)
    assert pulled.name == "m-Q8_0"
    assert pulled.path.read_bytes() == GGUF["m-Q8_0.gguf"]
    assert watch.files == ["m-Q8_0.gguf"]
    assert watch.came == watch.missing == len(GGUF["m-Q8_0.gguf"])


def test_without_a_type_the_usual_one(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    assert get("org/m-GGUF").name == "m-Q4_K_M"


def test_a_file_by_name(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    assert get("hf://org/m-GGUF/m-Q4_0.gguf").path.read_bytes() == GGUF["m-Q4_0.gguf"]


def test_all_parts_of_a_split_gguf(hub: FakeHub):
    parts = {f"Q8_0/m-Q8_0-0000{n}-of-00003.gguf": b"%d" % n + CONTENT for n in (1, 2, 3)}
    hub.repositories["org/m-GGUF"] = GGUF | parts
    pulled = get("org/m-GGUF/Q8_0/m-Q8_0-00002-of-00003.gguf")
    assert pulled.name == "m-Q8_0"
    assert pulled.path.name == "m-Q8_0-00001-of-00003.gguf"
    assert sorted(path.name for path in pulled.path.parent.iterdir()) == [path.rpartition("/")[2] for path in parts]


def test_of_a_sharded_folder_only_what_is_read(hub: FakeHub):
    hub.repositories["org/m"] = FOLDER
    pulled = get("org/m")
    assert pulled.name == "m"
    wanted = {path for path in FOLDER if path.endswith((".json", ".safetensors"))}
    assert {path.name for path in pulled.path.iterdir()} == wanted
    assert all((pulled.path / path).read_bytes() == FOLDER[path] for path in wanted)


def test_other_tools_find_what_was_brought(hub: FakeHub, cache: Path):
    hub.repositories["org/m"] = FOLDER
    pulled = get("org/m")
    assert try_to_load_from_cache("org/m", "config.json", cache_dir=cache) == str(pulled.path / "config.json")
    assert (pulled.path / "config.json").is_symlink()


def test_what_is_here_is_not_brought_again(hub: FakeHub):
    hub.repositories["org/m"] = FOLDER
    first = get("org/m")
    hub.asked.clear()
    assert get("org/m") == first
    assert [each.path for each in hub.asked] == ["/api/models/org/m"]


def test_what_another_revision_shares_is_not_brought_again(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    first = get("org/m-GGUF:Q4_0")
    shutil.rmtree(first.path.parent)  # as if that snapshot had been another
    hub.asked.clear()
    assert get(f"org/m-GGUF@{COMMIT}:Q4_0") == first
    assert hub.files_sent() == []


def test_a_cut_connection_goes_on_from_where_it_was(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    hub.faults.cuts = [100_000, 50_000]
    watch = Watch()
    assert get("org/m-GGUF:Q4_0", watch).path.read_bytes() == GGUF["m-Q4_0.gguf"]
    assert [each.range for each in hub.files_sent()] == [None, "bytes=100000-", "bytes=150000-"]
    assert watch.came == watch.missing


def test_a_pull_that_was_given_up_goes_on_at_the_next(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    hub.faults.cuts = [100_000, 0, 0, 0, 0]
    assert "What has arrived is kept" in refusal("org/m-GGUF:Q4_0")
    hub.asked.clear()
    watch = Watch()
    assert get("org/m-GGUF:Q4_0", watch).path.read_bytes() == GGUF["m-Q4_0.gguf"]
    assert [each.range for each in hub.files_sent()] == ["bytes=100000-"]
    assert watch.came == watch.missing == len(GGUF["m-Q4_0.gguf"]) - 100_000


def test_a_server_that_cannot_go_on_begins_anew(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    hub.faults.cuts = [100_000]
    hub.faults.ignores_ranges = True
    watch = Watch()
    assert get("org/m-GGUF:Q4_0", watch).path.read_bytes() == GGUF["m-Q4_0.gguf"]
    assert watch.came == watch.missing


def test_a_stumbling_hub_is_given_time(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    hub.faults.statuses = [503, 502]
    hub.faults.file_statuses = [500, 429, 504]
    assert get("org/m-GGUF:Q4_0").path.read_bytes() == GGUF["m-Q4_0.gguf"]


@pytest.mark.parametrize("path", ["m-Q4_0.gguf", "config.json"])
def test_a_wrong_checksum_leaves_nothing_behind(hub: FakeHub, cache: Path, path: str):
    hub.repositories["org/m"] = GGUF if path in GGUF else FOLDER
    hub.faults.instead[path] = bytes(len(hub.repositories["org/m"][path]))
    assert "checksum" in refusal("org/m:Q4_0" if path in GGUF else "org/m")
    assert not [file for file in cache.rglob("blobs/*") if file.read_bytes() == hub.faults.instead[path]]
    hub.faults.instead.clear()
    get("org/m:Q4_0" if path in GGUF else "org/m")


def test_a_checksum_is_no_path(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["org/m-GGUF"] = GGUF
    monkeypatch.setattr("fake_hub.sha256", lambda content: "../../../outside")
    assert "no checksum" in refusal("org/m-GGUF:Q4_0")
    assert not list(cache.parent.rglob("outside*"))


def test_more_than_was_announced_is_not_kept(hub: FakeHub, cache: Path):
    hub.repositories["org/m-GGUF"] = GGUF
    hub.faults.instead["m-Q4_0.gguf"] = GGUF["m-Q4_0.gguf"] + b"more"
    assert "sent more than the announced" in refusal("org/m-GGUF:Q4_0")
    assert not (cache / "models--org--m-GGUF" / "blobs" / sha256(GGUF["m-Q4_0.gguf"])).exists()


def test_a_gated_repository_says_what_to_do(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["org/m-GGUF"] = GGUF
    hub.gated.add("org/m-GGUF")
    for token in ("", "hf_stranger"):
        monkeypatch.setenv("HF_TOKEN", token)
        message = refusal("org/m-GGUF:Q4_0")
        assert f"accept its terms at {hub.url}/org/m-GGUF" in message
        assert "HF_TOKEN" in message
    monkeypatch.setenv("HF_TOKEN", hub.token)
    get("org/m-GGUF:Q4_0")
    assert {each.authorization for each in hub.files_sent()} == {None}, "a token must not leave the hub"


def test_an_unknown_repository_has_near_names(hub: FakeHub):
    hub.repositories["org/model-GGUF"] = GGUF
    assert "Did you mean org/model-GGUF?" in refusal("org/modell-GGUF")


def test_an_unknown_revision_says_which_there_are(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    assert refusal("org/m-GGUF@v2:Q4_0") == "org/m-GGUF has no revision 'v2'; there are: main"


def test_a_hub_that_does_not_answer(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["org/m-GGUF"] = GGUF
    first = get("org/m-GGUF:Q4_0")
    monkeypatch.setattr(constants, "ENDPOINT", unreachable())
    watch = Watch()
    assert get("org/m-GGUF:Q4_0", watch) == first
    assert "cannot reach" in watch.notes[0]
    assert "HF_ENDPOINT" in refusal("org/m-GGUF:Q8_0")
    assert "HF_ENDPOINT" in refusal("org/other")


def test_offline_with_and_without_a_cache(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["org/m-GGUF"] = GGUF
    hub.repositories["org/m"] = FOLDER
    assert "offline" in refusal("org/m", offline=True)
    first, folder = get("org/m-GGUF:Q4_0"), get("org/m")
    hub.asked.clear()
    assert get("org/m-GGUF:Q4_0", offline=True) == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get("org/m") == folder
    assert "Q8_0" in refusal("org/m-GGUF:Q8_0")
    os.remove(folder.path / "model-00002-of-00002.safetensors")
    assert "00002" in refusal("org/m")
    assert hub.asked == []


def test_a_disk_that_is_too_small(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["org/m-GGUF"] = GGUF
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(len(CONTENT)))
    message = refusal("org/m-GGUF:Q4_0")
    assert "0.00 GB" in message
    assert "HF_HUB_CACHE" in message
    assert hub.files_sent() == []
    assert not cache.exists()


def damage(path: Path, data: bytes) -> None:
    """Change what the cache holds, behind the links."""
    path.resolve().write_bytes(data)


def test_a_truncated_file_is_downloaded_again(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    path = get("org/m-GGUF:Q4_0").path
    damage(path, GGUF["m-Q4_0.gguf"][:1000])
    watch = Watch()
    assert get("org/m-GGUF:Q4_0", watch).path.read_bytes() == GGUF["m-Q4_0.gguf"]
    assert watch.came == watch.missing == len(GGUF["m-Q4_0.gguf"])
    assert watch.notes == ["m-Q4_0.gguf is damaged: its size or checksum is not the hub's. Downloading it again."]


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "tokenizer.json", "config.json"])
def test_a_file_of_another_checksum_is_found_and_mended_by_verify(hub: FakeHub, name: str):
    hub.repositories["org/m"] = FOLDER
    folder = get("org/m").path
    damage(folder / name, bytes(len(FOLDER[name])))
    get("org/m")
    assert (folder / name).read_bytes() != FOLDER[name], "sizes alone do not show it"
    watch = Watch()
    assert get("org/m", watch, verify=True).path == folder
    assert (folder / name).read_bytes() == FOLDER[name]
    assert name in watch.files  # two of the same content are one file in the cache
    again = Watch()
    get("org/m", again, verify=True)
    assert again.files == []
    assert again.notes == ["org/m: sizes and checksums of 6 files are the hub's"]


def test_verify_offline_names_the_damaged_file(hub: FakeHub):
    hub.repositories["org/m"] = FOLDER
    folder = get("org/m").path
    assert get("org/m", offline=True, verify=True).path == folder
    damage(folder / "model-00001-of-00002.safetensors", bytes(len(CONTENT) + 1))
    assert "model-00001-of-00002.safetensors is damaged" in refusal("org/m", offline=True, verify=True)


def test_a_config_that_somebody_edited_is_left_alone_and_kept_when_verify_replaces_it(hub: FakeHub):
    hub.repositories["org/m"] = FOLDER
    folder = get("org/m").path
    (folder / "config.json").unlink()
    (folder / "config.json").write_text('{"mine": 1}')
    get("org/m")
    assert (folder / "config.json").read_text() == '{"mine": 1}'
    get("org/m", verify=True)
    assert (folder / "config.json").read_bytes() == FOLDER["config.json"]
    assert (folder / "config.json.antiphon-replaced").read_text() == '{"mine": 1}'


def test_a_link_whose_file_is_gone_is_mended(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = GGUF
    path = get("org/m-GGUF:Q4_0").path
    path.resolve().unlink()
    assert get("org/m-GGUF:Q4_0").path.read_bytes() == GGUF["m-Q4_0.gguf"]


@pytest.mark.parametrize("where", ["", "models--org--m-GGUF", "models--org--m-GGUF/blobs", ".locks"])
def test_a_cache_that_is_no_folder_is_named(hub: FakeHub, cache: Path, where: str):
    hub.repositories["org/m-GGUF"] = GGUF
    (cache / where).parent.mkdir(parents=True, exist_ok=True)
    (cache / where).write_text("a file")
    message = refusal("org/m-GGUF:Q4_0")
    assert "cannot be used" in message
    assert "set HF_HUB_CACHE to another folder" in message
    assert len(message) < 500 + len(str(cache)) * 2


def test_a_complete_model_in_a_cache_that_cannot_be_written_is_served(hub: FakeHub, cache: Path):
    hub.repositories["org/m-GGUF"] = GGUF
    first = get("org/m-GGUF:Q4_0")
    shutil.rmtree(cache / "models--org--m-GGUF" / "refs")
    (cache / "models--org--m-GGUF" / "refs").write_text("cannot be a folder")  # root may write anywhere
    assert get("org/m-GGUF:Q4_0") == first


def test_a_commit_is_no_path(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["org/m-GGUF"] = GGUF
    monkeypatch.setattr("fake_hub.COMMIT", "../../../outside")
    assert "a commit of org/m-GGUF that cannot be one" in refusal("org/m-GGUF:Q4_0")
    assert not list(cache.parent.rglob("outside*"))


def test_what_a_hub_says_is_harmless_on_a_terminal(hub: FakeHub):
    hub.repositories["org/m-GGUF"] = {f"m\x1b[2J{n}-Q4_{n}.gguf": CONTENT for n in range(400)}
    message = refusal("org/m-GGUF")
    assert message.isprintable()
    hub.repositories["org/m-GGUF"] = {f"{'x' * 300}{n}-Q4_{n}.gguf": CONTENT for n in range(400)}
    message = refusal("org/m-GGUF:Q9")
    assert message.startswith("org/m-GGUF has no GGUF file of type 'Q9'")
    assert len(message) < 1300
