"""The GPU backend: kernels in Triton that compute the same bits as the native program (docs/decisions/028-gpu.md).

`arithmetic`, `norms`, `products`, `attention` and `head` hold kernels; `layouts` arranges weights for them; `device`
allocates, copies and launches; `program` records a model and replays it; `interpreter` runs all of it without a GPU.
Only these modules and `runtime.gpu` import torch or Triton, and only when a GPU or the interpreter is asked for.
"""
