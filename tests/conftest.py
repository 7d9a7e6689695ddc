import os

import pytest
import torch

# What the tests start in other processes has small networks as well, for which more threads only
# wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks are fastest on one thread, above all on a busy machine."""
    torch.set_num_threads(1)
