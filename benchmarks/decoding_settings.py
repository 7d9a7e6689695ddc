"""Which decoding settings should be the autoregressive captioner's defaults?

    python benchmarks/decoding_settings.py --threads 2 \\
        --output benchmarks/results/decoding_settings.json.gz
    python benchmarks/decoding_settings.py --limit 20 --temperatures 0.7 --top-p 0.95   # a look

The counterpart of sampling_settings.py, on the same scenes (scene seed 1, which no other table
uses). Nucleus sampling draws the largest number of candidates once per temperature and top-p, then
captions are chosen out of the first m of them with each ranking; beam search has its
beams and length penalties, diverse beam search its penalties, each for one caption and for five.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from common import (
    Row,
    add_clips,
    base_parser,
    check_output,
    machine_line,
    markdown_table,
    report,
    run_main,
    use_threads,
    write_report,
)
from sampling_settings import (
    add_rankings,
    chosen_scores,
    rankings,
    raw_row,
    scene_windows,
    set_scores,
    weights_of,
)
from tqdm import tqdm

from dac_diffusion.autoregressive.decoding import DecodingSettings
from dac_diffusion.autoregressive.drawing import SequenceDrawer
from dac_diffusion.captioning.window_encoding import Window
from dac_diffusion.metrics.cider import CiderD

COLUMNS = {
    "decoding": "decoding",
    "num_candidates": "candidates",
    "likelihood": "likelihood weight",
    "agreement": "agreement weight",
    "redundancy": "redundancy weight",
    "captions_per_clip": "K",
    "cider_d": "CIDEr-D first|.3f",
    "mean_cider_d": "mean of the captions|.3f",
    "best_cider_d": "best of the captions|.3f",
    "distinct_2_within_clip": "distinct-2 within clip|.3f",
    "repeated_bigram": "repeated bigram|.1%",
}


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    captioner = load(args)
    references, windows = scene_windows(captioner, args)
    scorer = CiderD(references)
    table: list[Row] = []
    raw: dict[str, list[Row]] = {}
    for name, settings in tqdm(list(every_setting(args)), desc="settings", unit="setting"):
        clips = decode_all(captioner, settings, windows)
        raw[name] = clips
        table += rows(name, settings, clips, scorer, args)
    print(markdown_table(table, COLUMNS))
    print(f"\n{len(references)} scenes; {machine_line()}")
    write_report(args.output, report("decoding_settings", args, table, raw))


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_clips(parser)
    parser.set_defaults(model="builtin-autoregressive", num_candidates=20)
    add = parser.add_argument
    add("--limit", type=int, default=150, help="number of scenes")
    add("--scene-seed", type=int, default=1)
    add("--temperatures", type=float, nargs="+", default=[0.5, 0.7, 0.85, 1.0])
    add("--top-p", type=float, nargs="+", default=[0.9, 0.95, 1.0])
    add("--candidates", type=int, nargs="+", default=[5, 10, 20])
    add_rankings(parser)
    add("--beams", type=int, nargs="+", default=[2, 4, 8])
    add("--length-penalties", type=float, nargs="+", default=[0.5, 1.0, 1.5])
    add("--diversity-penalties", type=float, nargs="+", default=[0.2, 0.5, 1.0, 2.0])
    return parser.parse_args()


def load(args: argparse.Namespace) -> Any:
    """The autoregressive captioner, after setting torch's threads."""
    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner

    use_threads(args)
    captioner = AutoregressiveCaptioner.from_pretrained(args.model, args.dtype)
    args.dtype = str(captioner.dtype).removeprefix("torch.")
    return captioner


def every_setting(args: argparse.Namespace) -> Iterator[tuple[str, DecodingSettings]]:
    """All settings by a name; sampling ones with the largest number of candidates."""
    most, k = args.num_candidates, args.num_captions
    yield "greedy", DecodingSettings(method="greedy")
    for temperature in args.temperatures:
        for top_p in args.top_p:
            yield (
                f"nucleus, temperature {temperature}, top-p {top_p}",
                DecodingSettings("nucleus", most, temperature=temperature, top_p=top_p),
            )
    for beams in args.beams:
        for penalty in args.length_penalties:
            for count in (1, k) if beams >= k else (1,):
                name = f"beam {beams}, length penalty {penalty}, {count} of them"
                yield name, DecodingSettings("beam", count, beams, length_penalty=penalty)
    for penalty in args.diversity_penalties:
        name = f"diverse beam {k}, penalty {penalty}"
        yield name, DecodingSettings("diverse_beam", k, k, diversity_penalty=penalty)


@torch.inference_mode()
def decode_all(captioner: Any, settings: DecodingSettings, windows: Sequence[Window]) -> list[Row]:
    """Texts of every scene with their similarity and likelihood."""
    longest = captioner.config.max_length
    settings = replace(settings, max_length=longest)
    settings.check(longest)
    # Never drawn again for more different ones.
    drawer = SequenceDrawer(captioner, settings, num_captions=1, with_likelihood=True)
    drawn: list[Row] = []
    for start in range(0, len(windows), 32):
        candidates = drawer.draw(windows[start : start + 32])
        drawn += [raw_row(captioner, one) for one in candidates]
    return drawn


def rows(
    name: str,
    settings: DecodingSettings,
    clips: Sequence[Row],
    scorer: CiderD,
    args: argparse.Namespace,
) -> list[Row]:
    """Lines of the table: of sampling ranked in several ways, of a search in its own order."""
    head = {"decoding": name, "num_candidates": settings.num_candidates}
    if settings.method != "nucleus":
        scores = set_scores([clip["texts"] for clip in clips], scorer)
        return [{**head, "captions_per_clip": settings.num_candidates, **scores}]
    k = args.num_captions
    unranked = set_scores([clip["texts"][:k] for clip in clips], scorer)
    found = [{**head, "num_candidates": k, "captions_per_clip": k, **unranked}]
    for count in args.candidates:
        for ranking in rankings(args):
            found.append(
                {
                    **head,
                    "num_candidates": count,
                    **weights_of(ranking),
                    "captions_per_clip": k,
                    **chosen_scores(clips, count, ranking, scorer, k),
                }
            )
    return found


if __name__ == "__main__":
    run_main(main)
