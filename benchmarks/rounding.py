"""Rounding of the split-BERT space: are latents of captions read back as the same captions?

    python benchmarks/rounding.py --threads 2 --output benchmarks/results/rounding.json
    python benchmarks/rounding.py --bert google-bert/bert-base-uncased --split-layers 6

The head is trained on the captions of train.csv in --captions (AudioCaps' tables) and tried on the
first 5,000 of val.csv and test.csv. Counted are tokens, [CLS] and [SEP] included and the padding
left out, and whole captions. Noise is a share of the latents' variance. Attended to: "all", the
padding too, in both halves; "words", without it while encoding.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import (
    FOLDER,
    Row,
    check_output,
    machine_line,
    markdown_table,
    report,
    run_main,
    use_threads,
    write_report,
)
from tqdm import tqdm

from dac_diffusion.data.tables import read_all_captions
from dac_diffusion.text.bert import MINILM, PretrainedBert, keep_used_tokens, load_bert
from dac_diffusion.text.split_bert_space import SplitBertSpace
from dac_diffusion.training.rounding_head import HeadTrainingConfig, rounding_accuracy, train_head

NOISE = (0.0, 0.1, 0.2, 0.5, 0.7, 0.9)
COLUMNS = {
    "split_layer": "layers below|d",
    "attend": "attended to",
    "captions": "captions read back|.2%",
    **{f"tokens_{noise}": f"tokens, {noise:.0%} noise|.2%" for noise in NOISE},
}


def main() -> None:
    """Print and write the table."""
    args = parse_arguments()
    check_output(args.output)
    use_threads(args)
    training = read_all_captions(args.captions / "train.csv")
    tables = [args.captions / f"{name}.csv" for name in ("val", "test")]
    held_out = [text for path in tables for text in read_all_captions(path)][: args.limit]
    bert = load_bert(args.bert)
    if args.vocabulary == "captions":
        bert = keep_used_tokens(bert, training)
    table: list[Row] = []
    settings = [(k, attend) for k in args.split_layers for attend in args.attend]
    for split_layer, attend in tqdm(settings, desc="settings", unit="setting"):
        space = trained_space(bert, training, split_layer, attend, args)
        table.append(measure(space, bert, held_out, attend, args))
    print(markdown_table(table, COLUMNS))
    print(f"\n{len(held_out)} captions, {len(bert.tokenizer)} tokens; {machine_line()}")
    write_report(args.output, report("rounding", args, table, {}))


def trained_space(
    bert: PretrainedBert,
    training: list[str],
    split_layer: int,
    attend: str,
    args: argparse.Namespace,
) -> SplitBertSpace:
    """A latent space split at a layer, its head trained on the captions."""
    torch.manual_seed(args.seed)
    space = SplitBertSpace.from_bert(bert, split_layer, attend_to_padding=attend == "all")
    space.fit_statistics(training[:5000], args.max_length)
    head = HeadTrainingConfig(steps=args.head_steps)
    options = (args.max_length, head, args.seed, args.dtype == "bfloat16")
    train_head(space, bert.tokenizer, training, *options)
    return space


def measure(
    space: SplitBertSpace,
    bert: PretrainedBert,
    held_out: list[str],
    attend: str,
    args: argparse.Namespace,
) -> Row:
    """How much is read back, clean and under noise."""
    row: Row = {"split_layer": space.split_layer, "attend": attend}
    for noise in NOISE:
        tokens, captions = rounding_accuracy(
            space, bert.tokenizer, held_out, args.max_length, noise, args.seed
        )
        row[f"tokens_{noise}"] = tokens
        if noise == 0.0:
            row["captions"] = captions
    return row


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--bert", default=MINILM, help="minilm, a folder, or a Hub id")
    add("--captions", type=Path, default=FOLDER.parent / "../shared/data/captions/audiocaps")
    add("--split-layers", type=int, nargs="+", default=[3, 6])
    add("--attend", nargs="+", choices=("all", "words"), default=["all"])
    add("--vocabulary", choices=("all", "captions"), default="captions")
    add("--max-length", type=int, default=40)
    add("--head-steps", type=int, default=1000)
    add("--limit", type=int, default=5000, help="captions to read back")
    add("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of the training")
    add("--seed", type=int, default=0)
    add("--threads", type=int, help="torch threads; default: torch's own choice")
    add("--output", type=Path, help="JSON file for the table")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
