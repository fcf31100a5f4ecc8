"""What all tests share: the `gpu` marker, and an environment without the user's settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

REQUIRE_GPU = "REELSTACK_REQUIRE_GPU"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip `gpu` tests where torch sees no NVIDIA device, or fail them where one is required."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if torch.cuda.is_available():
        return
    reason = "torch sees no NVIDIA device"
    if os.environ.get(REQUIRE_GPU) == "1":
        pytest.fail(f"{reason}, but {REQUIRE_GPU}=1 asks for one", pytrace=False)
    pytest.skip(f"{reason} (set {REQUIRE_GPU}=1 to make this a failure)")


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights folder of the user is not the tests'."""
    monkeypatch.delenv("REELSTACK_WEIGHTS", raising=False)


@pytest.fixture(scope="module", autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tiny networks wait for each other on several threads: 3 times slower on a busy machine."""
    torch = sys.modules.get("torch")
    if torch is None or request.path.parent.name not in ("unit", "robustness"):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
