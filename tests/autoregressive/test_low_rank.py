"""LoRA against weights changed by hand, and stock models made of adapted ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from dac_diffusion.autoregressive.low_rank import (
    LowRankConfig,
    SplitProjection,
    add_adapters,
    has_adapters,
    merge_adapters,
    merged_adapters,
)
from dac_diffusion.encoders.ced import CedEncoder
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.errors import ConfigError, MissingExtraError
from dac_diffusion.saved_models import load_saved_model

CONFIG = LowRankConfig(rank=4, alpha=8, dropout=0.5)
SCALE = 2.0  # alpha / rank
KINDS = ["llama", "bart", "ced", "small"]


def make(kind: str) -> Any:
    """A small random model in evaluation mode, the same at every call."""
    torch.manual_seed(0)
    if kind == "llama":
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=20, **sizes, **heads)).eval()
    if kind == "bart":
        sizes = {"encoder_layers": 1, "decoder_layers": 2, "d_model": 32}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        widths = {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 16}
        config = BartConfig(vocab_size=20, **sizes, **heads, **widths)
        return BartForConditionalGeneration(config).eval()
    if kind == "ced":
        return CedEncoder(embed_dim=48, depth=2, num_heads=4, mlp_dim=96).eval()
    return ConvolutionalEncoder(channels=(4, 4, 8, 8), width=32, depth=2, heads=2).eval()


def outputs(model: Any) -> Tensor:
    """What a model makes of the same input, with gradients."""
    if isinstance(model, (CedEncoder, ConvolutionalEncoder)):
        waveform = torch.randn(2, 16000, generator=torch.Generator().manual_seed(1))
        features: Tensor = model(0.1 * waveform, torch.tensor([16000, 9000])).features
        return features
    ids = torch.tensor([[5, 6, 7, 8]])
    logits: Tensor = model(input_ids=ids).logits
    return logits


def adapted(kind: str) -> Any:
    """A model whose adapters have learnt something."""
    model = make(kind)
    add_adapters(model, CONFIG)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def changed_by_hand(kind: str) -> nn.Module:
    """The stock model with (alpha / rank) B A added to its query and value weights."""
    stock, weights = make(kind), dict(adapted(kind).named_parameters())
    products = {}
    for name in weights:
        if "lora_A" in name:
            place = name.split(".lora_A")[0]
            up = weights[name.replace("lora_A", "lora_B")].detach()
            products[place] = SCALE * up @ weights[name].detach()
    modules = dict(stock.named_modules())
    with torch.no_grad():
        for place, product in products.items():
            if place in modules:
                modules[place].weight += product
            else:  # a third of a merged projection
                merged, _, part = place.rpartition(".")
                third = ["q_proj", "k_proj", "v_proj"].index(part)
                modules[merged].weight.chunk(3)[third].add_(product)
    assert products
    return stock


@pytest.mark.parametrize("kind", KINDS)
def test_new_adapters_change_nothing(kind: str) -> None:
    model = make(kind)
    add_adapters(model, CONFIG)
    with torch.no_grad():
        torch.testing.assert_close(outputs(model.eval()), outputs(make(kind)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_add_their_product_to_query_and_value(kind: str) -> None:
    with torch.no_grad():
        found, expected = outputs(adapted(kind)), outputs(changed_by_hand(kind))
        assert (found - outputs(make(kind))).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_split_projection_is_the_merged_one() -> None:
    merged = nn.Linear(6, 18)
    split, x = SplitProjection(merged), torch.randn(3, 5, 6)
    q, k, v = merged(x).chunk(3, dim=-1)
    torch.testing.assert_close(split.q_proj(x), q)
    torch.testing.assert_close(split(x), torch.cat([q, k, v], dim=-1))
    joined = split.join()
    assert torch.equal(joined.weight, merged.weight)
    assert torch.equal(joined.bias, merged.bias)
    assert SplitProjection(nn.Linear(6, 18, bias=False)).join().bias is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", 2 * (4 * (32 + 32) + 4 * (32 + 16))),  # two key-value heads of four
        ("bart", (1 + 2 * 2) * 2 * 4 * (32 + 32)),  # decoder layers attend twice
        ("ced", 2 * 2 * 4 * (48 + 48)),
        ("small", 2 * 2 * 4 * (32 + 32)),
    ],
)
def test_only_the_adapters_train(kind: str, expected: int) -> None:
    model = make(kind)
    add_adapters(model, CONFIG)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trainable.values()) == expected
    assert all(".lora_A." in name or ".lora_B." in name for name in trainable)
    assert not any("k_proj" in name for name in trainable)
    outputs(model.train()).square().mean().backward()
    # The first ones of B are zero, so that at first only B learns.
    assert all(p.grad.any() for name, p in trainable.items() if "lora_B" in name)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_is_a_stock_model_with_the_same_outputs(kind: str, tmp_path: Path) -> None:
    model = adapted(kind)
    assert has_adapters(model)
    with torch.no_grad():
        before = outputs(model)
        merge_adapters(model)
        torch.testing.assert_close(outputs(model), before, rtol=0, atol=1e-5)
    assert not has_adapters(model)
    stock = make(kind)
    assert list(model.state_dict()) == list(stock.state_dict())
    assert {type(m) for m in model.modules()} == {type(m) for m in stock.modules()}
    model.save_pretrained(tmp_path)
    load: Callable[[Path], Any] = (
        type(model).from_pretrained
        if kind in ("llama", "bart")
        else lambda folder: load_saved_model(type(model), folder)
    )
    with torch.no_grad():
        torch.testing.assert_close(outputs(load(tmp_path).eval()), before, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "ced"])
def test_merged_for_a_while_it_comes_back_bit_by_bit(kind: str) -> None:
    model = adapted(kind).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    with merged_adapters(model):
        assert list(model.state_dict()) == list(make(kind).state_dict())
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trainable
    with pytest.raises(RuntimeError, match="full disk"), merged_adapters(model):
        raise RuntimeError("full disk")
    assert has_adapters(model)


def test_a_model_without_adapters_is_left_alone() -> None:
    model = make("llama")
    modules = dict(model.named_modules())
    with merged_adapters(model):
        assert dict(model.named_modules()) == modules
    merge_adapters(model)
    assert dict(model.named_modules()) == modules
    assert all(p.requires_grad for p in model.parameters())


def test_adapters_can_be_added_again_after_merging() -> None:
    model = adapted("llama")
    merge_adapters(model)
    with torch.no_grad():
        before = outputs(model)
        add_adapters(model, CONFIG)
        torch.testing.assert_close(outputs(model.eval()), before, rtol=0, atol=1e-5)
    assert has_adapters(model)


def test_dropout_is_for_training() -> None:
    model = adapted("llama")
    with torch.no_grad():
        assert torch.equal(outputs(model), outputs(model))
        model.train()
        torch.manual_seed(0)
        assert not torch.equal(outputs(model), outputs(model))


def test_adapters_of_half_precision_weights_are_in_float32() -> None:
    model = make("llama").to(torch.bfloat16)
    add_adapters(model, CONFIG)
    kinds = {"lora" in name: p.dtype for name, p in model.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert outputs(model).dtype == torch.bfloat16


def test_a_network_without_such_layers() -> None:
    network = GPT2LMHeadModel(
        GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    )
    with pytest.raises(ConfigError) as caught:
        add_adapters(network, CONFIG)
    assert str(caught.value) == (
        "GPT2LMHeadModel: has no layers named q_proj and v_proj, so it cannot have LoRA; use a "
        "Llama or BART, or train all weights"
    )
    assert all(p.requires_grad for p in network.parameters())


def test_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    model = make("ced")
    with pytest.raises(MissingExtraError) as caught:
        add_adapters(model, CONFIG)
    assert str(caught.value) == (
        "LoRA needs peft: install the extra, for example `pip install 'dac-diffusion[lora]'`, or "
        "train all weights"
    )
    assert list(model.state_dict()) == list(make("ced").state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "lora.rank=0: must be at least 1"),
        ({"alpha": 0}, "lora.alpha=0: must be at least 1"),
        ({"dropout": 1.0}, "lora.dropout=1.0: must be from 0 to below 1"),
    ],
)
def test_sizes_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LowRankConfig(**settings)
    assert str(caught.value) == message
