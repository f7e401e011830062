"""The image for GPUs, built on Debian instead of NVIDIA's image: everything in it but a GPU."""

from __future__ import annotations

import pytest
from containers import build_image, in_image, need

TAG = "localhost/antiphon-gpu:test"
# What Triton does before the first kernel: a module in C, which includes Python.h, compiled and loaded from the cache.
_COMPILE = """
from triton.runtime.build import compile_module_from_src
source = '''
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "answer", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_answer(void) {
  PyObject *made = PyModule_Create(&module);
  PyModule_AddIntConstant(made, "answer", 42);
  return made;
}
'''
module = compile_module_from_src(source, "answer")
print(module.answer, module.__file__)
"""


@pytest.fixture(scope="module")
def gpu_image() -> str:
    need("buildah", "mmdebstrap", "podman", "runc")
    build_image(TAG, "--build-arg", "EXTRAS=gpu")
    return TAG


def test_triton_compiles_what_it_needs_into_the_volume_of_the_cache(gpu_image: str):
    volume = ["--volume", "/var/cache/antiphon"]
    answer, place = in_image(gpu_image, "python3", "-c", _COMPILE, options=volume).split()
    assert answer == "42"
    assert place.startswith("/var/cache/antiphon/triton/")


def test_it_has_what_the_server_needs_to_use_a_gpu(gpu_image: str):
    said = in_image(gpu_image, "python3", "-c", "import pynvml, torch, triton; print(triton.__version__)")
    assert said.strip()


def test_without_a_gpu_it_says_what_to_do(gpu_image: str):
    check = "from antiphon.machine.gpu import choose_device; choose_device('cuda')"
    said = in_image(gpu_image, "sh", "-c", f'python3 -c "{check}" 2>&1 || true')
    assert "there is no NVIDIA GPU" in said
    assert "--gpus all" in said
