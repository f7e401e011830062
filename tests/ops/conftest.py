"""Every test of the kernels runs on every instruction set of this machine."""

import pytest

from antiphon import _native


@pytest.fixture(params=_native.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
