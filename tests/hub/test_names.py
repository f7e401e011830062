"""What a name means, and which files of a listing it takes."""

from __future__ import annotations

import pytest

from antiphon.errors import HubError
from antiphon.hub.names import ModelName, near_names, parse_name
from antiphon.hub.selection import HubFile, select


def name(repo: str, hub: str = "huggingface", **rest: str) -> ModelName:
    return ModelName(hub, repo, **rest)


@pytest.mark.parametrize(
    ("typed", "means"),
    [
        ("o/r", name("o/r")),
        ("o/r@v1.0", name("o/r", revision="v1.0")),
        ("o/r@refs/pr/3:Q4_0", name("o/r", revision="refs/pr/3", type="Q4_0")),
        ("o/r:q4_k_m", name("o/r", type="q4_k_m")),
        ("o/r/f.gguf", name("o/r", file="f.gguf")),
        ("o/r@main/a/f.gguf", name("o/r", revision="main", file="a/f.gguf")),
        ("hf://o/r", name("o/r")),
        ("hf.co/o/r:Q8_0", name("o/r", type="Q8_0")),
        ("https://huggingface.co/o/r/", name("o/r")),
        ("ms://o/r:Q8_0", name("o/r", "modelscope", type="Q8_0")),
        ("modelscope.cn/o/r", name("o/r", "modelscope")),
        ("deepseek-r1:1.5b", name("bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF", type="Q4_K_M")),
        ("DeepSeek-R1:8B-q8_0", name("bartowski/DeepSeek-R1-Distill-Llama-8B-GGUF", type="Q8_0")),
        ("deepseek-r1:70b-llama-distill-fp16", name("bartowski/DeepSeek-R1-Distill-Llama-70B-GGUF", type="F16")),
        ("deepseek-r1:1.5b-bf16", name("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")),
        ("model", None),
        ("/o/r", None),
        ("./o/r", None),
        ("../r", None),
        ("o/../r", None),
        ("a/b/c", None),
    ],
)
def test_what_a_name_means(typed: str, means: ModelName | None):
    assert parse_name(typed, "huggingface") == means


def test_a_name_is_looked_for_on_the_hub_that_was_chosen_unless_it_says():
    assert parse_name("o/r", "modelscope") == name("o/r", "modelscope")
    assert parse_name("hf://o/r", "modelscope") == name("o/r")
    short = parse_name("deepseek-r1:7b", "modelscope")
    assert short == name("unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF", "modelscope", type="Q4_K_M")


@pytest.mark.parametrize("typed", ["deepseek-r1", "deepseek-r1:2b", "deepseek-r1:latest"])
def test_a_short_name_that_is_none_says_which_there_are(typed: str):
    with pytest.raises(HubError, match=r"deepseek-r1:1.5b, deepseek-r1:7b, .*deepseek-r1:70b"):
        parse_name(typed, "huggingface")


def test_near_names():
    assert near_names("deepseek-r1-1.5b")[0] == "deepseek-r1:1.5b"
    assert near_names("demmo") == ["demo"]
    assert near_names("org/modell", ["Org/Model", "org/other"])[0] == "Org/Model"
    assert near_names("xyz") == []


def chosen(typed: str, *paths: str) -> tuple[list[str], str]:
    """The paths that are taken, and the one to open."""
    parsed = parse_name(typed, "huggingface")
    assert parsed is not None
    selection = select([HubFile(path) for path in paths], parsed)
    return [file.path for file in selection.files], selection.opens


def refusal(typed: str, *paths: str) -> str:
    with pytest.raises(HubError) as error:
        chosen(typed, *paths)
    return error.value.message


def test_a_type_is_the_end_of_a_name_in_any_case():
    files = ["M-Q4_K_M.gguf", "M-UD-Q4_K_M.gguf", "M-IQ4_XS.gguf", "M-Q4_K_S.gguf", "mmproj-M-Q4_K_M.gguf"]
    assert chosen("o/r:q4_k_m", *files) == (["M-Q4_K_M.gguf"], "M-Q4_K_M.gguf")
    assert chosen("o/r:UD-Q4_K_M", *files)[1] == "M-UD-Q4_K_M.gguf"
    assert refusal("o/r:Q4_XS", *files).endswith("there are IQ4_XS, Q4_K_M, Q4_K_S, UD-Q4_K_M")
    assert chosen("o/r:Q4_0", "m.Q4_0.gguf")[1] == "m.Q4_0.gguf"
    assert chosen("o/r:f16", "m.fp16.gguf", "m.F16.gguf")[1] == "m.F16.gguf"


def test_one_model_in_a_repository_needs_no_type():
    assert chosen("o/r", "README.md", "odd-name.gguf")[1] == "odd-name.gguf"
    parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert chosen("o/r", *parts) == (parts, parts[0])


def test_several_models_without_the_usual_type_are_asked_about():
    assert "o/r:Q4_0, o/r:Q8_0" in refusal("o/r", "m-Q4_0.gguf", "m-Q8_0.gguf")
    assert "a/m-Q4_0.gguf, b/m-Q4_0.gguf" in refusal("o/r:Q4_0", "a/m-Q4_0.gguf", "b/m-Q4_0.gguf")


def test_safetensors_come_before_gguf_unless_a_type_is_asked_for():
    files = ["config.json", "model.safetensors", "m-Q4_K_M.gguf"]
    assert chosen("o/r", *files) == (["config.json", "model.safetensors"], "")
    assert chosen("o/r:Q4_K_M", *files)[1] == "m-Q4_K_M.gguf"


def test_nothing_to_load_says_what_is_there():
    assert "it has config.json, pytorch_model.bin" in refusal("o/r", "config.json", "pytorch_model.bin")
    assert "no config.json" in refusal("o/r", "model.safetensors")
    assert "no GGUF files" in refusal("o/r:Q8_0", "config.json", "model.safetensors")
    assert "there are m-Q8_0.gguf" in refusal("o/r/m-q9_0.gguf", "m-Q8_0.gguf")


def test_a_missing_part_is_named():
    assert "m-00002-of-00002.gguf" in refusal("o/r", "m-00001-of-00002.gguf")
    assert "model-00002" in refusal(
        "o/r", "config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"
    )


def test_a_path_that_leaves_the_folder_or_cannot_be_printed_is_never_taken():
    for path in ("../../m.gguf", "/root/m.gguf", "m\x1b[2J.gguf"):
        assert "no model that can be loaded" in refusal("o/r", path)
