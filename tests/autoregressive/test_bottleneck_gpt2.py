"""GPT-2 with narrow cross-attention: its arithmetic, generation, freezing and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from dac_diffusion.autoregressive.bottleneck_gpt2 import (
    BottleneckGPT2,
    SmallGPT2Config,
    add_cross_attention,
    bottleneck_config,
    build_gpt2,
    freeze_all_but_cross_attention,
    load_gpt2,
)
from dac_diffusion.captioning.pretrained import _load
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.text.tokenizer import train_tokenizer
from tests.autoregressive.language_model_folders import write_folder
from tests.autoregressive.tiny_gpt2 import write_gpt2

WIDTH, HEADS, VOCABULARY, FRAMES = 32, 2, 40, 5
LENGTHS = (5, 3, 1)  # audio frames of the clips in the tests


def tiny(seed: int = 0, bottleneck: int = 4, **settings: Any) -> BottleneckGPT2:
    """Random weights of full scale, biases and layer norms too, so that all of them matter."""
    sizes = {"vocab_size": VOCABULARY, "n_positions": 48, "n_embd": WIDTH, "n_layer": 2}
    special = {"n_head": HEADS, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    config = bottleneck_config(GPT2Config(**{**sizes, **special, **settings}), bottleneck)
    network = BottleneckGPT2(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.3 + (parameter if parameter.ndim == 1 else 0))
    return network


def audio(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(LENGTHS), FRAMES, WIDTH, generator=generator)
    mask = torch.arange(FRAMES) < torch.tensor(LENGTHS)[:, None]
    return {"encoder_hidden_states": hidden, "encoder_attention_mask": mask.long()}


def prompts() -> Tensor:
    return torch.randint(
        3, VOCABULARY, (len(LENGTHS), 4), generator=torch.Generator().manual_seed(2)
    )


def attend(weights: dict[str, np.ndarray], hidden: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Cross-attention of one clip, hidden (L, W), frames (S, W), by loops in float64."""
    query = hidden @ weights["q_attn.weight"] + weights["q_attn.bias"]
    both = frames @ weights["c_attn.weight"] + weights["c_attn.bias"]
    narrow = query.shape[1]
    key, value, size = both[:, :narrow], both[:, narrow:], narrow // HEADS
    mixed = np.zeros_like(query)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for place in range(len(hidden)):
            logits = np.array([query[place, part] @ row for row in key[:, part]]) / np.sqrt(size)
            shares = np.exp(logits - logits.max())
            mixed[place, part] = (shares / shares.sum()) @ value[:, part]
    return mixed @ weights["c_proj.weight"] + weights["c_proj.bias"]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("bottleneck", [1, 2, 4, 16])
def test_the_arithmetic_of_the_cross_attention(bottleneck: int, implementation: str) -> None:
    network = tiny(bottleneck=bottleneck).double()
    network.set_attn_implementation(implementation)
    layer = network.transformer.h[1].crossattention
    assert layer.q_attn.weight.shape == (WIDTH, WIDTH // bottleneck)
    seen: list[tuple[Tensor, Tensor]] = []
    layer.register_forward_hook(lambda _, given, out: seen.append((given[0], out[0])))
    sound = audio()
    sound["encoder_hidden_states"] = sound["encoder_hidden_states"].double()
    with torch.inference_mode():
        network(prompts(), **sound)
    ((hidden, output),) = seen
    weights = {name: value.numpy() for name, value in layer.state_dict().items()}
    for row, length in enumerate(LENGTHS):
        frames = sound["encoder_hidden_states"][row, :length].numpy()
        expected = attend(weights, hidden[row].numpy(), frames)
        np.testing.assert_allclose(output[row].numpy(), expected, rtol=0, atol=1e-12)


def test_it_is_stock_gpt2_where_the_cross_attention_adds_nothing() -> None:
    network = tiny()
    stock = GPT2LMHeadModel(
        GPT2Config(**{**network.config.to_dict(), "add_cross_attention": False})
    )
    missing, unexpected = stock.load_state_dict(network.state_dict(), strict=False)
    assert not missing
    assert all("cross" in name for name in unexpected)
    with torch.inference_mode():
        with_audio = network(prompts(), **audio()).logits
        assert not torch.allclose(with_audio, stock.eval()(prompts()).logits, atol=0.1)
        for block in network.transformer.h:
            block.crossattention.c_proj.weight.zero_()
            block.crossattention.c_proj.bias.zero_()
        torch.testing.assert_close(
            network(prompts(), **audio()).logits, stock(prompts()).logits, rtol=0, atol=1e-5
        )


def test_masked_frames_and_their_order_change_nothing() -> None:
    network, sound = tiny(), audio()
    other = sound["encoder_hidden_states"].clone()
    for row, length in enumerate(LENGTHS):
        other[row, length:] = 9.0
        other[row, :length] = other[row, :length].flip(0)
    with torch.inference_mode():
        first = network(prompts(), **sound).logits
        second = network(prompts(), **{**sound, "encoder_hidden_states": other}).logits
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)


def step_by_step(network: Any, ids: Tensor, sound: dict[str, Tensor], steps: int) -> Tensor:
    """Greedy decoding that computes everything anew for each token."""
    for _ in range(steps):
        logits = network(ids, use_cache=False, **sound).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return ids


def beams_without_cache(
    network: Any, ids: Tensor, sound: dict[str, Tensor], beams: int, steps: int
) -> tuple[Tensor, float]:
    """The best of `beams` sequences of one clip and its mean log-probability, from scratch."""
    alive = [(0.0, ids[0])]
    for _ in range(steps):
        grown = []
        for score, sequence in alive:
            logits = network(sequence[None], use_cache=False, **sound).logits[0, -1]
            logarithms = logits.log_softmax(dim=-1)
            for token in range(VOCABULARY):
                longer = torch.cat([sequence, torch.tensor([token])])
                grown.append((score + float(logarithms[token]), longer))
        alive = sorted(grown, key=lambda pair: -pair[0])[:beams]
    return alive[0][1], alive[0][0] / steps


@torch.inference_mode()
def test_generation_is_step_by_step_without_a_cache() -> None:
    network, sound, steps = tiny(), audio(), 6
    network.generation_config.eos_token_id = None  # so that all run to their full length
    lengths = {"max_new_tokens": steps, "do_sample": False, "attention_mask": torch.ones(3, 4)}
    found = network.generate(prompts(), **lengths, **sound)
    assert torch.equal(found, step_by_step(network, prompts(), sound, steps))
    assert not torch.equal(found[0, 4:], found[1, 4:])
    beams = network.generate(
        prompts(), num_beams=3, output_scores=True, return_dict_in_generate=True, **lengths, **sound
    )
    for row in range(len(LENGTHS)):
        alone = {name: value[row : row + 1] for name, value in sound.items()}
        ids, score = beams_without_cache(network, prompts()[row : row + 1], alone, 3, steps)
        assert torch.equal(beams.sequences[row], ids)
        assert float(beams.sequences_scores[row]) == pytest.approx(score, abs=1e-4)


@torch.inference_mode()
def test_a_prompt_padded_on_the_left_gives_the_same() -> None:
    network, sound = tiny(), audio()
    embed = network.get_input_embeddings()
    settings = {"max_new_tokens": 5, "do_sample": False, "num_beams": 2, **sound}
    plain = network.generate(
        inputs_embeds=embed(prompts()), attention_mask=torch.ones(3, 4).long(), **settings
    )
    padded = torch.cat([torch.zeros(3, 2, WIDTH), embed(prompts())], dim=1)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]] * 3)
    assert torch.equal(
        network.generate(inputs_embeds=padded, attention_mask=mask, **settings), plain
    )


def counts(network: torch.nn.Module) -> tuple[int, int]:
    """Trainable parameters and all, the tied embeddings once."""
    own = {n: p for n, p in network.named_parameters() if n != "lm_head.weight"}
    trainable = sum(p.numel() for p in own.values() if p.requires_grad)
    return trainable, sum(p.numel() for p in own.values())


def test_the_published_share_is_trained() -> None:
    with torch.device("meta"):
        network = BottleneckGPT2(bottleneck_config(GPT2Config(), 4))
    freeze_all_but_cross_attention(network)
    trainable, everything = counts(network)
    assert trainable == 12 * (768 * 192 + 192 + 768 * 384 + 384 + 192 * 768 + 768) == 7_094_016
    assert round(100 * trainable / everything, 2) == 5.39
    freeze_all_but_cross_attention(network, train_norms=True)
    assert counts(network)[0] == trainable + 12 * 2 * 768


def test_only_what_is_trained_has_a_gradient() -> None:
    network = tiny()
    freeze_all_but_cross_attention(network)
    network(prompts(), **audio()).logits.square().mean().backward()
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, _ in network.named_parameters() if ".crossattention." in n}
    assert len(with_gradient) == 2 * 6


def test_the_initial_weights_are_gpt2s() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=9, n_embd=256, n_layer=8, n_head=4, initializer_range=0.1)
    network = BottleneckGPT2(bottleneck_config(config, 4))
    for block in network.transformer.h:
        layer = block.crossattention
        for part, deviation in (("c_attn", 0.1), ("q_attn", 0.1), ("c_proj", 0.1 / 4)):
            weight = getattr(layer, part).weight
            assert float(weight.std().detach()) == pytest.approx(deviation, rel=0.05)
            assert not getattr(layer, part).bias.any()


# -- published weights, and saving


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_published_weights_are_taken_over(tmp_path: Path, prefix: str) -> None:
    stock = write_gpt2(tmp_path / "gpt2", prefix)
    model = load_gpt2(tmp_path / "gpt2", seed=3)
    network, tokenizer = model.network, model.tokenizer
    assert not network.training
    own = network.state_dict()
    for name, weight in stock.state_dict().items():
        if not name.endswith(("attn.bias", "masked_bias")):
            assert torch.equal(own[name], weight), name
    assert network.lm_head.weight is network.transformer.wte.weight
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        torch.testing.assert_close(network(ids).logits, stock(ids).logits, rtol=0, atol=1e-5)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("!", ".")
    assert (network.config.pad_token_id, network.config.eos_token_id) == (0, 13)
    assert network.generation_config.eos_token_id == 13
    assert len(tokenizer) == network.config.vocab_size


def test_new_weights_come_from_the_seed_alone(tmp_path: Path) -> None:
    write_gpt2(tmp_path / "gpt2")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    networks = [load_gpt2(tmp_path / "gpt2", seed=seed).network for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), before)
    new = [n.transformer.h[1].crossattention.q_attn.weight for n in networks]
    assert torch.equal(new[0], new[1])
    assert not torch.equal(new[0], new[2])


def test_saved_and_loaded_as_a_captioners_network(tmp_path: Path) -> None:
    write_gpt2(tmp_path / "gpt2")
    network = load_gpt2(tmp_path / "gpt2", bottleneck=2).network
    network.save_pretrained(tmp_path / "saved")
    loaded = _load(tmp_path / "saved", BottleneckGPT2, torch.float32)
    assert loaded.config.cross_attention_bottleneck == 2
    assert loaded.state_dict().keys() == network.state_dict().keys()
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    sound = audio()
    with torch.inference_mode():
        assert torch.equal(loaded(prompts(), **sound).logits, network(prompts(), **sound).logits)


def test_a_saved_network_is_read_strictly(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    removed = weights.pop("transformer.h.0.crossattention.q_attn.weight")
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"the weights lack .+q_attn\.weight; config"):
        _load(tmp_path, BottleneckGPT2, torch.float32)
    weights["transformer.h.0.crossattention.q_attn.weight"] = removed[:, :3].contiguous()
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="cannot be loaded as BottleneckGPT2"):
        _load(tmp_path, BottleneckGPT2, torch.float32)


def test_a_network_of_another_type_is_kept() -> None:
    stock = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=16, n_layer=1, n_head=2))
    assert add_cross_attention(stock.to(torch.bfloat16), 4, 0).dtype == torch.bfloat16
    assert not stock.config.add_cross_attention


def test_folders_that_are_no_gpt2(tmp_path: Path) -> None:
    write_folder(tmp_path / "llama", "llama")
    with pytest.raises(CheckpointError, match="describes a model of type 'llama', not 'gpt2'"):
        load_gpt2(tmp_path / "llama")
    write_folder(tmp_path / "words", "gpt2")
    with pytest.raises(CheckpointError, match=r"the tokenizer has no '\.'; give GPT-2's own"):
        load_gpt2(tmp_path / "words")
    with pytest.raises(CheckpointError, match="there is no such folder"):
        load_gpt2(tmp_path / "missing")


def test_a_bottleneck_that_does_not_fit() -> None:
    for bottleneck in (3, 32, 0):
        with pytest.raises(ConfigError, match=f"bottleneck={bottleneck}: must divide the 16 numb"):
            tiny(bottleneck=bottleneck)


def test_a_small_one_over_our_own_words() -> None:
    tokenizer = train_tokenizer(["a dog barks"], 1500)
    network = build_gpt2(SmallGPT2Config(), tokenizer)
    own = {n: p for n, p in network.named_parameters() if n != "lm_head.weight"}
    assert 5e6 < sum(p.numel() for p in own.values()) < 15e6
    config = network.config
    assert (config.pad_token_id, config.eos_token_id, config.bos_token_id) == (0, 2, 3)
    assert (config.vocab_size, config.n_positions) == (len(tokenizer), 256)


def test_sizes_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="layers=0: must be at least 1"):
        SmallGPT2Config(layers=0)
    with pytest.raises(ConfigError, match="width=30: must be a multiple of heads=4"):
        SmallGPT2Config(width=30)
    with pytest.raises(ConfigError, match=r"dropout=1\.0: must be from 0 to below 1"):
        SmallGPT2Config(dropout=1.0)
