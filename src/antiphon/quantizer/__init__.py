"""A checkpoint made smaller: what `antiphon quantize` does.

`types` decides which tensor gets which type, `model` walks through the tensors and writes them (`gguf_file`, `folder`),
`streamed` computes a model in float32 a matrix at a time, for `importance` (which columns matter on a text) and
`comparison` (what became of the answers).
"""
