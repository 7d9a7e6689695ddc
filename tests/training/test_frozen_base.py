"""A training of adapters beside a published language model that is frozen, in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import SMALL_SCENES
from torch import Tensor

from dac_diffusion.errors import CheckpointError
from dac_diffusion.training.checkpoints import list_checkpoints
from dac_diffusion.training.run import train
from tests.autoregressive.language_model_folders import write_folder

CONFIG = Path(__file__).parents[2] / "configs/tiny/ced_llama.yaml"
SMALL = (
    *SMALL_SCENES,
    "scorer_loop.max_steps=2",
    "loop.max_steps=4",
    "loop.learning_rate=0.01",
    "loop.warmup_steps=1",
    "loop.mixed_precision=bf16",
    "loop.num_workers=0",
    "prefix.dtype=bfloat16",
    "prefix.lora.rank=2",
    "prefix.train_encoder=false",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two language models of the same sizes, whose shared scenes are kept there."""
    folder = tmp_path_factory.mktemp("frozen_base")
    write_folder(folder / "llama", "llama", hidden_size=64)
    other = write_folder(folder / "other", "llama", hidden_size=64)
    other.lm_head.weight.data[0, 0] += 1.0
    other.save_pretrained(folder / "other")
    return folder


def run(place: Path, name: str, *more: str, base: str = "llama") -> Path:
    settings = [f"prefix.language_model={place / base}", f"cache_dir={place / 'scenes'}"]
    settings += [f"output_dir={place / name}"]
    train(CONFIG, [*SMALL, *settings, *more], progress=False)
    return place / name


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    return run(place, "whole")


def tensors(folder: Path) -> dict[str, Tensor]:
    """All that the newest checkpoint holds."""
    newest = list_checkpoints(folder / "checkpoints")[-1]
    assert newest.name == "step_00000004"
    found = {
        f"{name}.{key}": value
        for name in ("model", "ema")
        for key, value in load_file(newest / f"{name}.safetensors").items()
    }
    states: list[dict[str, Any]] = torch.load(newest / "optimizer.pt", weights_only=True)
    for index, state in states[0]["state"].items():
        found |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    return found


def test_a_checkpoint_holds_what_is_trained_and_no_more(whole: Path) -> None:
    names = tensors(whole)
    assert any("lora_A" in name for name in names)
    of_network = [name for name in names if ".network." in name]
    assert of_network
    assert all("lora_" in name for name in of_network)
    assert not any(name.startswith(("model.encoder.", "ema.encoder.")) for name in names)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(place: Path, whole: Path) -> None:
    run(place, "parts", "max_steps=2")
    parts = run(place, "parts")
    first, second = tensors(whole), tensors(parts)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("model.safetensors", "diffusion_pytorch_model.safetensors"):
        for file in (whole / "model").rglob(name):
            own, same = load_file(file), load_file(parts / file.relative_to(whole))
            assert all(torch.equal(own[key], same[key]) for key in own), file


def test_another_language_model_is_refused(place: Path, whole: Path) -> None:
    longer = ("loop.max_steps=5", "loop.checkpoint_every=5")
    with pytest.raises(CheckpointError, match=r"other frozen weights .*\(in network\)"):
        run(place, "whole", *longer, base="other")
    with pytest.raises(CheckpointError, match=r"other frozen weights .*\(in network\)"):
        run(place, "whole", *longer, "prefix.dtype=float32")


def network_types(folder: Path) -> set[torch.dtype]:
    return {value.dtype for value in load_file(folder / "network/model.safetensors").values()}


@pytest.mark.parametrize("kind", ["model", "best_model"])
def test_the_captioner_has_the_language_model_in_its_own_precision(whole: Path, kind: str) -> None:
    assert network_types(whole / kind) == {torch.bfloat16}
    projection = load_file(whole / kind / "projection/diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in projection.values()} == {torch.float32}
    base = load_file(whole.parent / "llama/model.safetensors")
    network = load_file(whole / kind / "network/model.safetensors")
    assert base.keys() == network.keys()
    changed = {name for name in base if not torch.equal(base[name].bfloat16(), network[name])}
    assert changed
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)


def test_going_on_from_it_keeps_the_precision(place: Path, whole: Path) -> None:
    again = run(place, "again", f"initial_model={whole / 'model'}", "max_steps=1")
    assert network_types(again / "model") == {torch.bfloat16}
