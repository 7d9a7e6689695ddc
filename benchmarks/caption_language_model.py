"""A small GPT-2 that has read captions and heard nothing: the frozen half of RECAP in retrieval.py.

    python benchmarks/caption_language_model.py --threads 1 --folder runs/caption_gpt2  # 32 minutes
    dac-diffusion train configs/ablations/recap_unseen_frozen.yaml soundscapes.clips=PATH/TO/clips

The published RECAP freezes a GPT-2 that knows words from the web, and takes up what stands in its
context. This one stands for it where nothing can be fetched: it reads the captions of the training
scenes, those of all sounds, as text. Each document is RECAP's prompt with 0 to 4 captions and the
caption to be written; every one shown is as likely another caption of the same scene as one of any
other scene. So it learns the words, and to repeat what was shown, but not when.

Printed, and in --output: the cross-entropy of a caption's tokens (nats) in scenes that were not
read, after nothing, after three captions of other scenes, and after three of its own.
The tokenizer is that of the built-in captioner, whose joint space the datastore is searched in.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    SHARED_CLIPS,
    Row,
    check_output,
    machine_line,
    markdown_table,
    report,
    run_main,
    use_threads,
    write_report,
)
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from dac_diffusion.autoregressive.bottleneck_gpt2 import SmallGPT2Config, small_config
from dac_diffusion.autoregressive.retrieval_prompt import prompt_ids
from dac_diffusion.captioning.pretrained import find_checkpoint
from dac_diffusion.data.scene_cache import load_or_render_pool
from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig
from dac_diffusion.files import atomic_folder, make_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.training.loop import LoopConfig, fit

MOST_SHOWN = 4
KEPT_SCENES = 200  # at the end of the pool, to measure on
SHOWN = {"nothing": 0, "of other scenes": 3, "of its own scene": 3}
COLUMNS = {"shown": "captions shown", "cross_entropy": "cross-entropy|.3f"}
IGNORED = -100  # transformers' mark of a label that does not count


def main() -> None:
    """Train, then print and write the table."""
    args = parse_arguments()
    check_output(args.output)
    use_threads(args)
    task = CaptionReading(load_tokenizer(args.model), read_scenes(args), args)
    loop = LoopConfig(
        max_steps=args.steps,
        learning_rate=args.learning_rate,
        mixed_precision="bf16",
        evaluate_every=args.evaluate_every,
        checkpoint_every=args.evaluate_every,
        best_metric="-of_its_own_scene",
        seed=args.seed,
    )
    result = fit(task, loop, args.folder)
    table: list[Row] = [
        {"shown": shown, "cross_entropy": result.metrics[metric_name(shown)]} for shown in SHOWN
    ]
    print(markdown_table(table, COLUMNS))
    size = sum(parameter.numel() for parameter in task.model.parameters())
    print(
        f"\n{size:,} parameters, {result.steps} steps, {result.minutes:.0f} min; {machine_line()}"
    )
    print(f"recap.gpt2={args.folder / 'model'}")
    write_report(args.output, report("caption_language_model", args, table, {}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="builtin", help="the captioner whose tokenizer it uses")
    add("--clips", type=Path, default=SHARED_CLIPS, help="folder with clips.csv, or none")
    add("--scenes", type=int, default=14000, help="training scenes whose captions are read")
    add("--cache", type=Path, help="rendered scenes; default: scenes in --folder")
    add("--folder", type=Path, default=Path("runs/caption_gpt2"))
    add("--steps", type=int, default=1200)
    add("--batch-size", type=int, default=64)
    add("--learning-rate", type=float, default=1e-3)
    add("--evaluate-every", type=int, default=250)
    add("--threads", type=int, help="torch threads; default: torch's own choice")
    add("--seed", type=int, default=0)
    add("--output", type=Path, help="JSON file for the table")
    return parser.parse_args()


def load_tokenizer(model: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a captioner's folder."""
    return PreTrainedTokenizerFast.from_pretrained(find_checkpoint(model) / "tokenizer")


def read_scenes(args: argparse.Namespace) -> list[tuple[str, ...]]:
    """The captions of every training scene; they are rendered first where they are not cached."""
    clips = None if str(args.clips) == "none" else str(args.clips)
    folder = make_folder(args.cache or args.folder / "scenes")
    pool = load_or_render_pool(folder, SoundscapeConfig(clips=clips), "train", args.scenes)
    return list(pool.captions)


def metric_name(shown: str) -> str:
    """A key of SHOWN as the name of a metric."""
    return shown.replace(" ", "_")


class CaptionReading:
    """The language model's training as the loop sees it (`training/loop.py`)."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        scenes: Sequence[Sequence[str]],
        args: argparse.Namespace,
    ) -> None:
        torch.manual_seed(args.seed)
        self.tokenizer, self.batch_size, self.seed = tokenizer, args.batch_size, args.seed
        self.network = GPT2LMHeadModel(small_config(SmallGPT2Config(), tokenizer))
        self.model: nn.Module = CaptionReader(self.network)
        kept = min(KEPT_SCENES, len(scenes) // 2)
        self.scenes, self.kept = scenes[:-kept], scenes[-kept:]

    def batch(self, step: int, rank: int, world_size: int) -> dict[str, Tensor]:
        """Documents of random scenes; every token of them is to be predicted."""
        random = np.random.default_rng([self.seed, step, rank])
        pairs = [self._document(random) for _ in range(self.batch_size)]
        return padded(pairs, self.tokenizer.pad_token_id)

    def _document(self, random: np.random.Generator) -> tuple[list[int], list[int]]:
        """Prompt and caption."""
        scene = self.scenes[int(random.integers(len(self.scenes)))]
        order = random.permutation(len(scene)).tolist()
        others = [scene[place] for place in order[1:]]
        shown = []
        for _ in range(random.integers(MOST_SHOWN + 1)):
            other_scene = self.scenes[int(random.integers(len(self.scenes)))]
            other = other_scene[int(random.integers(len(other_scene)))]
            shown.append(others.pop() if others and random.random() < 0.5 else other)
        return prompt_ids(self.tokenizer, shown), self._caption(scene[order[0]])

    def _caption(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    def after_step(self, step: int, outputs: dict[str, Tensor]) -> None:
        """Nothing to do between steps."""

    @torch.no_grad()
    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        """Cross-entropy of the first captions of the scenes that are not read."""
        found = {}
        for name, count in SHOWN.items():
            pairs = []
            for place, (first, *others) in enumerate(self.kept):
                own = name == "of its own scene"
                shown = others if own else self.kept[place - 1]  # the scene before it
                prompt = prompt_ids(self.tokenizer, shown[:count])
                pairs.append((prompt, self._caption(first)))
            batch = padded(pairs, self.tokenizer.pad_token_id, captions_only=True)
            found[metric_name(name)] = float(model(batch, torch.Generator())["loss"])
        return found

    def state(self) -> dict[str, Any]:
        """Nothing beyond the weights."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing beyond the weights."""

    def export(self, folder: Path) -> None:
        """Write network and tokenizer, as transformers does."""
        with atomic_folder(folder) as partial, quiet_libraries():
            self.network.save_pretrained(partial)
            self.tokenizer.save_pretrained(partial)


class CaptionReader(nn.Module):
    """A GPT-2 with its loss."""

    def __init__(self, network: GPT2LMHeadModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of the labels (B, L), nats per token."""
        return {"loss": self.network(**batch).loss}


def padded(
    pairs: Sequence[tuple[list[int], list[int]]], padding: int, captions_only: bool = False
) -> dict[str, Tensor]:
    """Prompts and captions as a batch (B, L), padded on the right.

    captions_only: the prompts are no labels.
    """
    longest = max(len(prompt) + len(caption) for prompt, caption in pairs)
    ids = torch.full((len(pairs), longest), padding)  # (B, L)
    labels = torch.full((len(pairs), longest), IGNORED)  # (B, L)
    mask = torch.zeros(len(pairs), longest, dtype=torch.long)  # (B, L)
    for row, (prompt, caption) in enumerate(pairs):
        both = torch.tensor(prompt + caption)
        ids[row, : len(both)] = labels[row, : len(both)] = both
        mask[row, : len(both)] = 1
        if captions_only:
            labels[row, : len(prompt)] = IGNORED
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


if __name__ == "__main__":
    run_main(main)
