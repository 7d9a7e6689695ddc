"""Language models from folders: strictly, without code, with one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dac_diffusion.autoregressive.language_models import (
    SmallModelConfig,
    build_llama,
    load_language_model,
)
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.text.tokenizer import encode_captions, train_tokenizer
from tests.autoregressive.language_model_folders import SPECIAL, write_folder

KINDS = ["llama", "bart", "gpt2"]


def edit_config(folder: Path, **changes: Any) -> None:
    """Change entries of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def error_of(folder: Path | str) -> str:
    """The one line that loading raises, without the folder's own path."""
    with pytest.raises(CheckpointError) as caught:
        load_language_model(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(f"{folder}/", "").replace(str(folder), "FOLDER")


@torch.no_grad()
def logits(network: Any) -> torch.Tensor:
    result: torch.Tensor = network(input_ids=torch.tensor([[3, 5, 4, 6]])).logits
    return result


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_network_that_was_saved(tmp_path: Path, kind: str, parts: bool) -> None:
    original = write_folder(tmp_path, kind)
    if parts:
        (tmp_path / "model.safetensors").unlink()
        original.save_pretrained(tmp_path, max_shard_size="8KB")
        assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    model = load_language_model(tmp_path)
    assert type(model.network) is type(original)
    assert not model.network.training
    assert torch.equal(logits(model.network), logits(original))


def test_the_weights_can_be_had_in_half_precision(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    network = load_language_model(tmp_path, torch.bfloat16).network
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("kind", "bos", "eos", "pad", "cls"),
    [
        ("llama", "<s>", "</s>", "<unk>", None),
        ("bart", "<s>", "</s>", "<pad>", "<s>"),
        ("gpt2", "<|endoftext|>", "<|endoftext|>", "!", None),
    ],
)
def test_special_tokens(
    tmp_path: Path, kind: str, bos: str, eos: str, pad: str, cls: str | None
) -> None:
    write_folder(tmp_path, kind)
    network, tokenizer = (model := load_language_model(tmp_path)).network, model.tokenizer
    found = tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.cls_token
    assert found == (bos, eos, pad, cls)
    ids = {token: place for place, token in enumerate(SPECIAL[kind])}
    config = network.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        ids[bos],
        ids[eos],
        ids[pad],
    )
    row = encode_captions(tokenizer, ["a dog"], 5)[0].tolist()
    start = [] if cls is None else [ids[cls]]
    words = [len(ids), len(ids) + 1]
    expected = [*start, *words, ids[eos]]
    assert row == expected + [ids[pad]] * (5 - len(expected))


def test_padding_is_never_the_end_token(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama", pad_token_id=2)
    assert load_language_model(tmp_path).tokenizer.pad_token == "<unk>"
    edit_config(tmp_path, pad_token_id=-1, eos_token_id=[2, 1])
    model = load_language_model(tmp_path)
    assert (model.tokenizer.pad_token, model.tokenizer.eos_token) == ("<unk>", "</s>")


def test_settings_for_generation_are_dropped(tmp_path: Path) -> None:
    network = write_folder(tmp_path, "bart")
    network.generation_config.num_beams = 4
    network.generation_config.no_repeat_ngram_size = 3
    network.generation_config.save_pretrained(tmp_path)
    settings = load_language_model(tmp_path).network.generation_config
    assert settings.num_beams in (1, None)
    assert not settings.no_repeat_ngram_size
    assert settings.forced_eos_token_id is None
    assert settings.decoder_start_token_id == 2


def test_a_bart_saved_without_its_head(tmp_path: Path) -> None:
    network = write_folder(tmp_path, "bart")
    network.model.save_pretrained(tmp_path)  # as facebook/bart-base is
    assert torch.equal(logits(load_language_model(tmp_path).network), logits(network))


def test_code_in_the_folder_does_not_run(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    (tmp_path / "modeling_trap.py").write_text(code)
    names = {"AutoModelForCausalLM": "modeling_trap.Trap", "AutoConfig": "modeling_trap.Trap"}
    edit_config(tmp_path, auto_map=names)
    traps = {"auto_map": {"AutoTokenizer": ["modeling_trap.Trap", "modeling_trap.Trap"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(traps))
    load_language_model(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_what_is_missing(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    assert error_of(missing) == (
        "FOLDER: there is no such folder; give the folder of a Llama, GPT-2 or BART, or a Hub id "
        "(owner/name) such as meta-llama/Llama-2-7b-hf"
    )
    assert error_of(tmp_path) == (
        "config.json: is missing, so this is no complete checkpoint; copy or save it again"
    )
    write_folder(tmp_path, "llama")
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer.model")
    assert error_of(tmp_path) == (
        "tokenizer.json: is missing; copy the model's tokenizer there (one that has only "
        "tokenizer.model: load it with transformers and save it again)"
    )
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert error_of(tmp_path) == (
        "FOLDER: has neither model.safetensors nor model.safetensors.index.json; other formats "
        "(pytorch_model.bin) are not read, as they may hold code: get the safetensors files"
    )
    file = tmp_path / "config.json"
    assert error_of(str(file)) == "FOLDER: is a file; give the checkpoint folder that holds it"


def test_offline_a_hub_id_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert error_of("nobody/no-such-llama") == (
        "FOLDER: no such folder here, not downloaded before, and HF_HUB_OFFLINE is set; give the "
        "path of a local folder (checkpoint)"
    )


def test_other_kinds(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    for kind in ("opt", None, ["llama"]):
        edit_config(tmp_path, model_type=kind)
        assert error_of(tmp_path) == (
            f"config.json: describes a model of type {kind!r}; the language models here are of "
            "type llama, gpt2, bart, such as facebook/bart-base and meta-llama/Llama-2-7b-hf"
        )


def test_damaged_weights(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    weights = tmp_path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    assert error_of(tmp_path).startswith("model.safetensors: damaged or cut off (")
    weights.write_bytes(b"")
    assert error_of(tmp_path).startswith("model.safetensors: damaged or cut off (")


def test_a_part_that_is_missing_or_cut_off(tmp_path: Path) -> None:
    network = write_folder(tmp_path, "llama")
    (tmp_path / "model.safetensors").unlink()
    network.save_pretrained(tmp_path, max_shard_size="8KB")
    part = sorted(tmp_path.glob("model-*-of-*.safetensors"))[1]
    content = part.read_bytes()
    part.write_bytes(content[:-10])
    assert error_of(tmp_path).startswith(f"{part.name}: damaged or cut off (")
    part.unlink()
    assert error_of(tmp_path) == f"{part.name}: is missing; copy the checkpoint again"
    index = tmp_path / "model.safetensors.index.json"
    for names in ({}, {"lm_head.weight": "../elsewhere.safetensors"}, None):
        index.write_text(json.dumps({"weight_map": names}))
        assert error_of(tmp_path) == (
            "model.safetensors.index.json: damaged, it names no files; copy it again"
        )


def test_weights_of_another_model(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    edit_config(tmp_path, num_hidden_layers=3)
    assert error_of(tmp_path).startswith("FOLDER: the weights lack model.layers.2.")
    edit_config(tmp_path, num_hidden_layers=1)
    assert error_of(tmp_path).startswith(
        "FOLDER: the weights have, beyond what config.json describes, model.layers.1."
    )
    edit_config(tmp_path, num_hidden_layers=2, intermediate_size=20)
    assert "mlp.down_proj.weight is (16, 24) instead of (16, 20); " in error_of(tmp_path)
    edit_config(tmp_path, intermediate_size=24, num_attention_heads="two")
    assert error_of(tmp_path).startswith("FOLDER: cannot be loaded as LlamaForCausalLM (")


def test_adapters_beside_the_model(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert error_of(tmp_path) == (
        "FOLDER: holds adapters beside the model, which would be left out; merge them into it, or "
        "remove adapter_config.json"
    )


def test_tokenizers_that_do_not_fit(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    edit_config(tmp_path, eos_token_id=None)
    assert error_of(tmp_path) == (
        "config.json: has no eos_token_id that is a token of tokenizer.json; add it"
    )
    edit_config(tmp_path, eos_token_id=0)  # the unknown token, which would be the padding
    assert error_of(tmp_path) == (
        "config.json: has no pad_token_id that is a token of tokenizer.json and not the end token; "
        "add it"
    )
    path = tmp_path / "tokenizer.json"
    whole = path.read_text()
    path.write_text(whole[:50])
    assert error_of(tmp_path) == "tokenizer.json: damaged or no tokenizer; copy it again"
    content = json.loads(whole)
    content["model"]["vocab"]["another"] = 12
    path.write_text(json.dumps(content))
    assert error_of(tmp_path) == (
        "tokenizer.json: has 13 tokens, but the network has 12; they do not belong together, copy "
        "both again"
    )


def test_a_bart_without_a_start(tmp_path: Path) -> None:
    write_folder(tmp_path, "bart")
    edit_config(tmp_path, decoder_start_token_id=None)
    assert error_of(tmp_path) == "config.json: has no decoder_start_token_id; copy it again"


def test_a_small_llama_of_our_own_words() -> None:
    tokenizer = train_tokenizer(["a dog barks in the rain"], 200)
    with torch.device("meta"):
        network = build_llama(SmallModelConfig(), tokenizer)
    assert 5e6 < sum(p.numel() for p in network.parameters()) < 15e6
    small = SmallModelConfig(width=16, layers=2, heads=2, feed_forward=24, max_positions=32)
    network = build_llama(small, tokenizer)
    config = network.config
    assert config.vocab_size == len(tokenizer)
    assert (config.pad_token_id, config.eos_token_id, config.bos_token_id) == (0, 2, 3)
    assert network.lm_head.weight is network.get_input_embeddings().weight
    assert network(input_ids=torch.tensor([[3, 5]])).logits.shape == (1, 2, len(tokenizer))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "small.width=0: must be at least 1"),
        ({"layers": 1}, "small.layers=1: must be at least 2"),
        ({"width": 20, "heads": 4}, "small.width=20: must be a multiple of twice small.heads=4"),
        ({"dropout": 1.0}, "small.dropout=1.0: must be from 0 to below 1"),
    ],
)
def test_sizes_that_make_no_network(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SmallModelConfig(**settings)
    assert str(caught.value) == message
