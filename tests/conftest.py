import os
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from tests.helpers import tiny_captioner, write_recordings
from tests.laion_clap.make_hub_cache import write_byte_tokenizer
from tests.metrics.fabricated_models import laion_text_side, save_clap

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


@pytest.fixture(scope="session")
def roberta_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of RoBERTa's kind, as laion-clap's .pt files need one."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_byte_tokenizer(folder, "RobertaTokenizer")
    return folder


@pytest.fixture(scope="session")
def laion_text(roberta_tokenizer: Path) -> nn.ModuleDict:
    """The text side of a .pt file of laion-clap, tiny, for that tokenizer."""
    return laion_text_side(len(AutoTokenizer.from_pretrained(roberta_tokenizer)))


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLAP as transformers saves one; tests only read it."""
    folder = tmp_path_factory.mktemp("clap")
    save_clap(folder)
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A recording without fault."""
    (path,) = write_recordings(tmp_path, 1, seconds=0.3)
    return path
