import os
from pathlib import Path

import pytest
import torch

from tests.helpers import tiny_captioner, write_recordings

# What the tests start in other processes has small networks as well, for which more threads only
# wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks are fastest on one thread, above all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny captioner; tests that damage it copy it first."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_captioner().save_pretrained(folder)
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A recording without fault."""
    (path,) = write_recordings(tmp_path, 1, seconds=0.3)
    return path
