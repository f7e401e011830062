"""Records what llama.cpp makes of the hard texts, for `test_tokenizer.py` to compare with. Run by hand, not by tests.

    pip install llama-cpp-python            # 0.3.36 recorded what is here
    python tests/data/record_token_ids.py SmolLM2-135M-Instruct.Q4_1.gguf

Reads the texts from `token_ids.json` and writes them back with new ids: under "smollm2" with the real model's
vocabulary, under each pre-tokenizer's name with the tiny vocabulary, under "sentence-piece" with the tiny one of that
kind; `…+control` with control tokens recognized.
"""

import json
import sys
import tempfile
from pathlib import Path

import llama_cpp

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from tiny_checkpoints import metadata, write_gguf
from tiny_sentence_piece import sentence_piece_metadata

FILE = Path(__file__).with_name("token_ids.json")
PRE_TOKENIZERS = ("smollm", "qwen2", "deepseek-r1-qwen", "llama-bpe", "tekken")


def record(model: Path, name: str, cases: list[dict[str, object]]) -> None:
    vocabulary = llama_cpp.Llama(str(model), vocab_only=True, verbose=False)
    for case in cases:
        raw = str(case["text"]).encode()
        case[name] = vocabulary.tokenize(raw, add_bos=False, special=False)
        case[f"{name}+control"] = vocabulary.tokenize(raw, add_bos=False, special=True)


def main() -> None:
    recorded = json.loads(FILE.read_text(encoding="utf-8"))
    cases = [{"text": case["text"]} for case in recorded["cases"]]
    record(Path(sys.argv[1]), "smollm2", cases)
    with tempfile.TemporaryDirectory() as folder:
        for pre in PRE_TOKENIZERS:
            record(write_gguf(Path(folder) / f"{pre}.gguf", metadata(pre=pre)), pre, cases)
        record(write_gguf(Path(folder) / "tiny.gguf", sentence_piece_metadata()), "sentence-piece", cases)
    note = f"Recorded by record_token_ids.py from llama-cpp-python {llama_cpp.__version__}."
    lines = ",\n".join(json.dumps(case) for case in cases)
    FILE.write_text(f'{{"note": {json.dumps(note)}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
