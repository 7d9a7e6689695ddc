"""Scenes, datastores and captions of retrieval.py."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from common import validation_scenes
from judged_scenes import LabelledScene, find_scenes, windows_of
from torch import Tensor
from tqdm import tqdm

from dac_diffusion.autoregressive.caption_tokens import CaptionTokens
from dac_diffusion.autoregressive.captioner import DATASTORE
from dac_diffusion.autoregressive.decoding import DecodingSettings, decode
from dac_diffusion.autoregressive.network import encode_audio
from dac_diffusion.autoregressive.retrieval_prompt import prompts_of
from dac_diffusion.captioning.pretrained import find_checkpoint
from dac_diffusion.captioning.ranking import texts_of
from dac_diffusion.captioning.window_encoding import encode_windows, window_batches
from dac_diffusion.configuration import load_config
from dac_diffusion.data.datastore_preparation import make_datastore
from dac_diffusion.data.soundscapes.dataset import SoundscapeDataset
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError
from dac_diffusion.retrieval.caption_lines import CaptionLines
from dac_diffusion.retrieval.datastore import CaptionDatastore
from dac_diffusion.retrieval.store_files import CAPTIONS_FILE
from dac_diffusion.training.settings import TrainingConfig

CLIPS_AT_ONCE = 32
TRAINING_STORE, BOTH_STORES, UNSEEN_STORE = "100 %", "100 % + unseen", "unseen"


@dataclass(frozen=True)
class HeardScenes:
    """Scenes of one set, encoded: batches of (places, features), and vectors (N, E) to look up."""

    name: str
    scenes: list[LabelledScene]
    held_out: list[list[str]]
    batches: list[tuple[list[int], AudioFeatures]]
    vectors: Tensor


def hear(
    captioner: Any, name: str, held_out: Sequence[str], args: argparse.Namespace
) -> HeardScenes:
    """Scenes with or without a held-out sound, through the audio encoder."""
    clips = None if str(args.clips) == "none" else args.clips
    wanted = set(held_out)
    scenes = find_scenes(
        validation_scenes(clips, args.scene_seed),
        args.limit,
        lambda labels: bool(wanted & set(labels)) == (name == "unseen"),
    )
    windows = windows_of(scenes, captioner.encoder.sampling_rate)
    batches: list[tuple[list[int], AudioFeatures]] = []
    vectors = torch.zeros(len(scenes), captioner.datastore.dimension)  # (N, E)
    with torch.inference_mode():
        for places in window_batches(windows, captioner.encoder, CLIPS_AT_ONCE):
            own = [windows[place] for place in places]
            audio = encode_windows(captioner.encoder, own, captioner.device)
            batches.append((places, audio))
            for place, pooled in zip(places, audio.pooled.split(1), strict=True):
                embedded = captioner.scorer.embed_audio(pooled.to(captioner.scorer.dtype))
                vectors[place] = embedded[0].float().cpu()
    return HeardScenes(
        name, scenes, [sorted(wanted & {*s.labels}) for s in scenes], batches, vectors
    )


def make_stores(
    captioner: Any,
    training: dict[str, list[str]],
    unseen: dict[str, list[str]],
    args: argparse.Namespace,
) -> dict[str, CaptionDatastore]:
    """The datastores to look captions up in, by their names in the table."""
    clips = sorted(training)
    random.Random(args.seed).shuffle(clips)
    stores: dict[str, CaptionDatastore] = {}
    for share in sorted(args.shares):
        some = clips[: max(1, round(share * len(clips)))]
        stores[f"{share:.0%}".replace("%", " %")] = build(
            captioner, {clip: training[clip] for clip in some}
        )
    stores[TRAINING_STORE] = captioner.datastore
    stores[BOTH_STORES] = build(captioner, training | unseen)
    stores[UNSEEN_STORE] = build(captioner, unseen)
    return stores


def training_captions(model: str) -> dict[str, list[str]]:
    """The captions in the captioner's own datastore, by their clips."""
    lines = CaptionLines.open(find_checkpoint(model) / DATASTORE / CAPTIONS_FILE)
    captions: dict[str, list[str]] = {}
    for place in range(len(lines)):
        clip, caption = lines[place]
        captions.setdefault(clip, []).append(caption)
    return captions


def unseen_captions(held_out: Sequence[str], args: argparse.Namespace) -> dict[str, list[str]]:
    """Captions of training scenes with a held-out sound; their audio is not kept."""
    clips = None if str(args.clips) == "none" else str(args.clips)
    trained_on = load_config(TrainingConfig, args.config).soundscapes
    dataset = SoundscapeDataset(replace(trained_on, clips=clips, held_out_labels=()), "train")
    wanted = set(held_out)
    found: dict[str, list[str]] = {}
    for index in tqdm(range(args.store_scenes), desc="captions of unseen sounds", unit="scene"):
        scene = LabelledScene.of(dataset.example(index))
        if wanted & set(scene.labels):
            found[f"unseen {index}"] = scene.references
    if not found:
        raise ConfigError(
            f"--store-scenes {args.store_scenes}: none of them has a held-out sound; raise it"
        )
    return found


def build(captioner: Any, captions: dict[str, list[str]]) -> CaptionDatastore:
    """A datastore of captions in the captioner's space."""
    embed = partial(captioner.scorer.embed_captions, tokenizer=captioner.tokenizer)
    space, longest = captioner.config.datastore_space, captioner.config.longest_caption
    return make_datastore(captions, embed, space, captioner.tokenizer, longest).datastore


@torch.inference_mode()
def write_captions(captioner: Any, heard: HeardScenes, shown: Sequence[Sequence[str]]) -> list[str]:
    """The captioner's greedy captions where it is shown these captions for each scene.

    Raises ConfigError where they are more than its positions.
    """
    config, network = captioner.config, captioner.network
    settings = DecodingSettings("greedy", max_length=config.max_length)
    tokens = CaptionTokens.of(captioner.tokenizer)
    captions = [""] * len(heard.scenes)
    for places, audio in heard.batches:
        prompts = prompts_of(
            captioner.tokenizer, [shown[place] for place in places], config.longest_caption
        )
        longest = max(map(len, prompts.left)) + config.max_length
        if longest > network.config.n_positions:
            raise ConfigError(
                f"--k: prompt and caption have up to {longest} tokens, but the network has "
                f"{network.config.n_positions} positions; give smaller ones"
            )
        encoded = encode_audio(captioner.projection, network, audio, prompts)
        generators = [torch.Generator() for _ in places]  # greedy decoding draws nothing
        ids = decode(network, tokens, encoded, settings, generators)  # (B, 1, L)
        for place, own in zip(places, texts_of(captioner.tokenizer, ids), strict=True):
            captions[place] = own[0]
    return captions
