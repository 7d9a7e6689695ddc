"""Training of the head that reads clean BERT latents back, before the denoiser needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from dac_diffusion.text.latent_space import cross_entropy, signal_and_noise
from dac_diffusion.text.split_bert_space import SplitBertSpace
from dac_diffusion.text.tokenizer import encode_captions


@dataclass(frozen=True)
class HeadTrainingConfig:
    """How the head is trained on its own; a BERT's own head needs little, a new one some hundreds.

    noise: the largest share of the variance that is noise, drawn anew for every caption, so that
    the head forgives small errors of the denoiser.
    """

    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-3
    noise: float = 0.2


def train_head(
    space: SplitBertSpace,
    tokenizer: PreTrainedTokenizerFast,
    captions: Sequence[str],
    length: int,
    config: HeadTrainingConfig,
    seed: int,
    bfloat16: bool = False,
    progress: bool = True,
) -> None:
    """Train head, extra layers and, where they are not frozen, the upper layers on captions.

    bfloat16: compute in it where that is safe, twice as fast on CPUs that have it.
    """
    generator = torch.Generator().manual_seed(seed)
    trained = [p for p in space.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(2, config.steps)
    )
    space.train()
    for _ in tqdm(range(config.steps), desc="rounding head", disable=not progress):
        chosen = torch.randint(len(captions), (config.batch_size,), generator=generator)
        ids = encode_captions(tokenizer, [captions[i] for i in chosen.tolist()], length)  # (N, L)
        share = config.noise * torch.rand(len(ids), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            noisy = add_noise(space.encode(ids), share, generator)  # (N, L, D)
            logits = space.decode(noisy)  # (N, L, V)
        loss = cross_entropy(logits, ids, torch.ones(ids.shape)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
    space.eval()


@torch.no_grad()
def rounding_accuracy(
    space: SplitBertSpace,
    tokenizer: PreTrainedTokenizerFast,
    captions: Sequence[str],
    length: int,
    noise: float = 0.0,
    seed: int = 0,
    batch_size: int = 256,
) -> tuple[float, float]:
    """Share of tokens (padding left out) and of whole captions that latents are read back to.

    noise: the share of the latents' variance that is noise.
    """
    generator = torch.Generator().manual_seed(seed)
    right = total = whole = 0
    for start in range(0, len(captions), batch_size):
        ids = encode_captions(tokenizer, captions[start : start + batch_size], length)  # (N, L)
        share = torch.full((len(ids),), noise)
        noisy = add_noise(space.encode(ids), share, generator)
        same = space.decode(noisy).argmax(dim=-1) == ids  # (N, L)
        words = ids != tokenizer.pad_token_id
        right += int((same & words).sum())
        total += int(words.sum())
        whole += int((same | ~words).all(dim=-1).sum())
    return right / total, whole / len(captions)


def add_noise(clean: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """Clean latents (N, L, D) of which `share` (N,) of the variance becomes noise."""
    alpha, sigma = signal_and_noise(torch.logit(share.clamp(1e-9, 1 - 1e-9)))
    noise = torch.randn(clean.shape, generator=generator)
    return alpha[:, None, None] * clean + sigma[:, None, None] * noise
