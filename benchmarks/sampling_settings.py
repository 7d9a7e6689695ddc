"""Which sampling and ranking settings should be the captioner's defaults?

    python benchmarks/sampling_settings.py --output benchmarks/results/sampling_settings.json.gz
    python benchmarks/sampling_settings.py --limit 20 --noise-scales 0.7 1.0      # a quick look

Draws the largest number of candidates once per scene and noise scale, then chooses captions out of
the first m of them with each ranking: the weights of likelihood, of agreement with the other
candidates and of redundancy (dac_diffusion/ranking/settings.py), beside the cosine's of 1. The
scenes are others than those of scenes.py (scene seed 1), so that settings are not chosen on what
they are reported on; the recordings are the same val recordings. `seconds`: of one 10 s clip,
median, everything included, measured apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from common import (
    Row,
    add_clips,
    base_parser,
    check_output,
    in_chunks,
    load_captioner,
    machine_line,
    markdown_table,
    report,
    run_main,
    validation_scenes,
    write_report,
)
from tqdm import tqdm

from dac_diffusion.audio.loading import prepare_waveform
from dac_diffusion.captioning.drawing import CandidateDrawer, DrawSettings
from dac_diffusion.captioning.ranking import Candidates, audio_text_cosines
from dac_diffusion.captioning.results import Caption
from dac_diffusion.captioning.selection import best_captions
from dac_diffusion.captioning.window_encoding import Window
from dac_diffusion.metrics.cider import CiderD
from dac_diffusion.metrics.diversity import distinct_n_within_clip
from dac_diffusion.metrics.wellformedness import wellformedness
from dac_diffusion.ranking.agreement import mean_agreement
from dac_diffusion.ranking.hybrid import RankingWeights, hybrid_scores
from dac_diffusion.ranking.settings import RankingSettings

COLUMNS = {
    "noise_scale": "initial noise",
    "num_candidates": "candidates",
    "likelihood": "likelihood weight",
    "agreement": "agreement weight",
    "redundancy": "redundancy weight",
    "cider_d": "CIDEr-D first|.3f",
    "mean_cider_d": "mean of the captions|.3f",
    "best_cider_d": "best of the captions|.3f",
    "distinct_2_within_clip": "distinct-2 within clip|.3f",
    "repeated_bigram": "repeated bigram|.1%",
    "seconds": "seconds|.3f",
}
TIMED_REPETITIONS = 7


def main() -> None:
    parser = base_parser(__doc__)
    add_clips(parser)
    parser.set_defaults(num_candidates=20)
    parser.add_argument("--limit", type=int, default=150, help="number of scenes")
    parser.add_argument("--scene-seed", type=int, default=1)
    parser.add_argument("--num-steps", type=int, default=8)
    parser.add_argument("--noise-scales", type=float, nargs="+", default=[0.7, 0.8, 0.9, 1.0])
    parser.add_argument("--candidates", type=int, nargs="+", default=[5, 10, 20])
    add_rankings(parser)
    args = parser.parse_args()
    check_output(args.output)
    captioner: Any = load_captioner(args)
    references, drawn = draw_candidates(captioner, args)
    seconds = {m: time_one_clip(captioner, m, args) for m in args.candidates}
    scorer = CiderD(references)
    table = [
        row(scale, count, ranking, drawn[scale], scorer, args.num_captions, seconds)
        for scale in args.noise_scales
        for count in args.candidates
        for ranking in rankings(args)
    ]
    print(markdown_table(table, COLUMNS))
    print(f"\n{len(references)} scenes; {machine_line()}")
    raw = {f"noise scale {scale}": clips for scale, clips in drawn.items()}
    write_report(args.output, report("sampling_settings", args, table, raw))


def add_rankings(parser: argparse.ArgumentParser) -> None:
    """The weights that are tried, each with each."""
    add = parser.add_argument
    add("--likelihood-weights", type=float, nargs="+", default=[0.0, 0.2])
    add("--agreement-weights", type=float, nargs="+", default=[0.0, 2.0, 5.0])
    add("--redundancy-weights", type=float, nargs="+", default=[0.0, 1.0])


def rankings(args: argparse.Namespace) -> list[RankingSettings]:
    """Each likelihood weight with each agreement and each redundancy weight."""
    return [
        RankingSettings(RankingWeights(1.0, likelihood, agreement), redundancy_weight=redundancy)
        for likelihood in args.likelihood_weights
        for agreement in args.agreement_weights
        for redundancy in args.redundancy_weights
    ]


def weights_of(ranking: RankingSettings) -> Row:
    """The weights for a line of the table."""
    weights = ranking.weights
    return {
        "likelihood": weights.likelihood,
        "agreement": weights.agreement,
        "redundancy": ranking.redundancy_weight,
    }


def draw_candidates(
    captioner: Any, args: argparse.Namespace
) -> tuple[list[list[str]], dict[float, list[Row]]]:
    """References of every scene; per noise scale every scene's texts, cosines and likelihoods."""
    references, windows = scene_windows(captioner, args)
    drawn: dict[float, list[Row]] = {}
    for scale in tqdm(args.noise_scales, desc="noise scales", unit="scale"):
        drawer = CandidateDrawer(captioner, settings(args, scale, args.num_candidates))
        with torch.inference_mode():
            drawn[scale] = [raw_row(captioner, c) for c in drawer.draw(windows)]
    return references, drawn


def scene_windows(captioner: Any, args: argparse.Namespace) -> tuple[list[list[str]], list[Window]]:
    """References and sound of every scene."""
    clips = None if str(args.clips) == "none" else args.clips
    rate = captioner.encoder.sampling_rate
    references: list[list[str]] = []
    windows: list[Window] = []
    for examples in in_chunks(validation_scenes(clips, args.scene_seed), args.limit):
        for example in examples:
            sound = prepare_waveform(example.waveform, example.sampling_rate, rate, "a scene")
            references.append(list(example.captions))
            windows.append(Window("", 0.0, sound))
    return references, windows


def settings(args: argparse.Namespace, noise_scale: float, num_candidates: int) -> DrawSettings:
    """As DiffusionCaptioner makes them; the likelihood is computed, whatever its weight."""
    return DrawSettings(
        num_captions=min(args.num_captions, num_candidates),
        num_candidates=num_candidates,
        num_steps=args.num_steps,
        guidance_scale=1.0 if args.guidance_scale is None else args.guidance_scale,
        initial_noise_scale=noise_scale,
        seed=args.seed,
        with_likelihood=True,
    )


def raw_row(captioner: Any, candidates: Candidates) -> Row:
    """Texts of one clip with the two parts of their scores."""
    assert candidates.log_likelihoods is not None
    return {
        "texts": candidates.texts,
        "cosines": audio_text_cosines(captioner.scorer, candidates, candidates.pooled).tolist(),
        "log_likelihoods": candidates.log_likelihoods.tolist(),
    }


def row(
    noise_scale: float,
    num_candidates: int,
    ranking: RankingSettings,
    clips: Sequence[Row],
    scorer: CiderD,
    num_captions: int,
    seconds: dict[int, float],
) -> Row:
    """The captions that these settings would have returned, scored."""
    return {
        "noise_scale": noise_scale,
        "num_candidates": num_candidates,
        **weights_of(ranking),
        **chosen_scores(clips, num_candidates, ranking, scorer, num_captions),
        "seconds": seconds[num_candidates],
    }


def chosen_scores(
    clips: Sequence[Row],
    num_candidates: int,
    ranking: RankingSettings,
    scorer: CiderD,
    num_captions: int,
) -> Row:
    """Scores of what ranking chooses out of each clip's first candidates."""
    chosen = []
    for clip in clips:
        texts = clip["texts"][:num_candidates]
        scores = hybrid_scores(
            ranking.weights,
            ranking.normalisation,
            torch.tensor(clip["cosines"][:num_candidates]),
            torch.tensor(clip["log_likelihoods"][:num_candidates]),
            torch.tensor(mean_agreement(texts)),
        ).tolist()
        candidates = [Caption(*each) for each in zip(texts, scores, strict=True)]
        captions = best_captions(
            candidates, num_captions, redundancy_weight=ranking.redundancy_weight
        )
        chosen.append([caption.text for caption in captions] or [""])
    return set_scores(chosen, scorer)


def set_scores(captions: Sequence[Sequence[str]], scorer: CiderD) -> Row:
    """Scores of the captions of every scene, best first."""
    values = [[scorer.score(text, i) for text in clip] for i, clip in enumerate(captions)]
    return {
        "cider_d": sum(clip[0] for clip in values) / len(values),
        "mean_cider_d": sum(sum(clip) / len(clip) for clip in values) / len(values),
        "best_cider_d": sum(max(clip) for clip in values) / len(values),
        "distinct_2_within_clip": distinct_n_within_clip(captions, 2),
        "repeated_bigram": wellformedness([t for c in captions for t in c]).repeated_bigram,
    }


def time_one_clip(captioner: Any, num_candidates: int, args: argparse.Namespace) -> float:
    """Median seconds of captioning 10 s of noise, for which the sound makes no difference."""
    rate = captioner.encoder.sampling_rate
    noise = torch.randn(10 * rate, generator=torch.Generator().manual_seed(0)).mul(0.1).numpy()
    seconds = []
    for _ in range(TIMED_REPETITIONS):
        start = time.perf_counter()
        captioner(
            noise,
            sampling_rate=rate,
            num_captions=min(args.num_captions, num_candidates),
            num_candidates=num_candidates,
            num_steps=args.num_steps,
        )
        seconds.append(time.perf_counter() - start)
    return median(seconds)


if __name__ == "__main__":
    run_main(main)
