"""Encoder, decoder or both: by which score is the best of several candidates chosen?

    python benchmarks/reranking.py --model runs/small_enclap_plus_plus/model --minilm --threads 1 \\
        --output benchmarks/results/reranking.json.gz
    python benchmarks/reranking.py --model builtin --minilm --threads 1 --error-detector builtin \\
        --output benchmarks/results/reranking_trigrams.json.gz
    python benchmarks/reranking.py --model builtin --limit 20              # a quick look

Candidates are drawn once for each scene, by the settings that the checkpoint was saved with, by
nucleus sampling where it is autoregressive. Then one is chosen by

    w * cosine of audio and caption (encoder)  +  (1 - w) * log-likelihood per token (decoder)

for w from 0 to 1, as they are and as z-scores over a scene's candidates; EnCLAP++ has w = 0.6.
Beside them minimum Bayes risk (agreement with the other candidates), the first candidate as it was
drawn, and the mean over all candidates. filter: "none" takes the best score whatever the caption
reads like; "errors" is the whole of EnCLAP++'s ranking, in which captions with faults or errors
come last. A diffusion captioner is tried without a likelihood, with w = 1 and agreement.

What chooses is not what is measured: under "errors" the column that counts faults is empty, and
where rules find the errors (--error-detector) the one that counts these. `gain` is the CIDEr-D
above the first candidate's, with its 95 % interval, paired over scenes. The scenes are those of
sampling_settings.py and decoding_settings.py (scene seed 1).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from common import (
    Row,
    add_clips,
    base_parser,
    check_output,
    in_chunks,
    machine_line,
    markdown_table,
    report,
    run_main,
    validation_scenes,
    write_report,
)
from judged_scenes import (
    NUMBERS,
    Judge,
    LabelledScene,
    add_minilm,
    load_any_captioner,
    means,
    windows_of,
)
from quality import load_vectors
from torch import Tensor
from tqdm import tqdm

from dac_diffusion.autoregressive.decoding import DecodingSettings
from dac_diffusion.autoregressive.drawing import SequenceDrawer
from dac_diffusion.captioning.drawing import CandidateDrawer, DrawSettings
from dac_diffusion.captioning.ranking import Candidates, audio_text_cosines
from dac_diffusion.captioning.scoring import Ranker
from dac_diffusion.metrics.bootstrap import bootstrap_mean_difference
from dac_diffusion.ranking.agreement import mean_agreement
from dac_diffusion.ranking.detectors import CHOICES_HELP, RULES, load_detector
from dac_diffusion.ranking.error_detection import ERROR_THRESHOLD
from dac_diffusion.ranking.error_filter import ErrorDetector
from dac_diffusion.ranking.hybrid import Normalisation, RankingWeights, hybrid_scores
from dac_diffusion.ranking.settings import RankingSettings

COLUMNS = {
    "chosen_by": "chosen by",
    "normalisation": "normalisation",
    "encoder": "encoder|.1f",
    "decoder": "decoder|.1f",
    "filter": "filter",
    **NUMBERS,
    "gain": "gain|+.3f",
    "interval": "95 % interval",
}
FILTERS = ("none", "errors")
COUNTED_BY_FILTER = ("faults", "errors")  # the second only where it is the rules that filter


@dataclass(frozen=True)
class Choice:
    """One way to choose: a name, the weights, their normalisation and the filter."""

    name: str
    weights: RankingWeights
    normalisation: Normalisation
    filter: str

    def row(self) -> Row:
        """The head of its line in the table."""
        head: Row = {"chosen_by": self.name, "filter": self.filter}
        if self.name == "encoder and decoder":
            head |= {
                "normalisation": self.normalisation,
                "encoder": self.weights.audio_text,
                "decoder": self.weights.likelihood,
            }
        return head


@dataclass(frozen=True)
class Drawn:
    """The candidates of a scene and the three scores of each, (N,)."""

    candidates: Candidates
    cosines: Tensor
    agreements: Tensor

    def row(self) -> Row:
        """What is kept of it in the result file."""
        likelihoods = self.candidates.log_likelihoods
        return {
            "texts": self.candidates.texts,
            "cosines": self.cosines.tolist(),
            "log_likelihoods": None if likelihoods is None else likelihoods.tolist(),
            "agreements": self.agreements.tolist(),
        }


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    minilm = load_vectors(args)
    captioner = load_any_captioner(args)
    scenes, drawn = draw_all(captioner, args)
    judge = Judge([s["labels"] for s in scenes], [s["references"] for s in scenes], minilm)
    table, chosen = compare(captioner, drawn, judge, args)
    print(markdown_table(table, COLUMNS))
    print(f"\n{len(scenes)} scenes, {args.num_candidates} candidates each; {machine_line()}")
    raw = [{**scene, **one.row()} for scene, one in zip(scenes, drawn, strict=True)]
    write_report(args.output, report("reranking", args, table, {"scenes": raw, "chosen": chosen}))


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_clips(parser)
    add_minilm(parser)
    add = parser.add_argument
    add("--limit", type=int, default=500, help="number of scenes")
    add("--scene-seed", type=int, default=1)
    add("--encoder-weights", type=float, nargs="+", default=[i / 10 for i in range(11)])
    add("--filters", nargs="+", choices=FILTERS, default=list(FILTERS))
    add("--error-detector", default=RULES, help=f"what filters errors: {CHOICES_HELP} ({RULES})")
    add("--error-encoder", help="the BERT of FENSE's checkpoint")
    add("--temperature", type=float, help="of nucleus sampling; default: the checkpoint's")
    add("--top-p", type=float, help="likewise")
    add("--num-steps", type=int, default=8, help="of a diffusion captioner")
    return parser.parse_args()


def draw_all(captioner: Any, args: argparse.Namespace) -> tuple[list[Row], list[Drawn]]:
    """What is in each scene, and the candidates for it; args.num_candidates becomes what it is."""
    drawer = make_drawer(captioner, args)
    args.num_candidates = drawer.settings.num_candidates
    clips = None if str(args.clips) == "none" else args.clips
    scenes: list[Row] = []
    drawn: list[Drawn] = []
    with tqdm(total=args.limit, desc="drawing", unit="scene") as bar, torch.inference_mode():
        for examples in in_chunks(validation_scenes(clips, args.scene_seed), args.limit):
            found = [LabelledScene.of(example) for example in examples]
            scenes += [scene.row() for scene in found]
            windows = windows_of(found, captioner.encoder.sampling_rate)
            drawn += [scored(captioner, candidates) for candidates in drawer.draw(windows)]
            bar.update(len(found))
    return scenes, drawn


def make_drawer(captioner: Any, args: argparse.Namespace) -> SequenceDrawer | CandidateDrawer:
    """Draws as the captioner itself does, but never again for more different candidates."""
    config = captioner.config
    count = args.num_candidates or config.num_candidates
    if not hasattr(captioner, "network"):
        scale = config.guidance_scale if args.guidance_scale is None else args.guidance_scale
        noise = config.initial_noise_scale
        settings = DrawSettings(1, count, args.num_steps, scale, noise, args.seed)
        return CandidateDrawer(captioner, settings)
    decoding = DecodingSettings(
        "nucleus",
        count,
        temperature=config.temperature if args.temperature is None else args.temperature,
        top_p=config.top_p if args.top_p is None else args.top_p,
        no_repeat_ngram=config.no_repeat_ngram,
        seed=args.seed,
        max_length=config.max_length,
    )
    decoding.check(config.max_length)
    return SequenceDrawer(captioner, decoding, num_captions=1, with_likelihood=True)


def scored(captioner: Any, candidates: Candidates) -> Drawn:
    """Candidates with their scores."""
    cosines = audio_text_cosines(captioner.scorer, candidates, candidates.pooled)  # (N,)
    return Drawn(candidates, cosines, torch.tensor(mean_agreement(candidates.texts)))


def choices(args: argparse.Namespace, with_likelihood: bool) -> Iterator[Choice]:
    """Every way to choose that is tried."""
    for filter_ in args.filters:
        if not with_likelihood:
            yield Choice("encoder", RankingWeights(), "none", filter_)
        else:
            for normalisation in ("none", "z_score"):
                for weight in args.encoder_weights:
                    weights = RankingWeights(weight, round(1 - weight, 10))
                    yield Choice("encoder and decoder", weights, normalisation, filter_)
        yield Choice("agreement", RankingWeights(0.0, 0.0, 1.0), "none", filter_)


@torch.inference_mode()
def compare(
    captioner: Any, drawn: Sequence[Drawn], judge: Judge, args: argparse.Namespace
) -> tuple[list[Row], list[Row]]:
    """The lines of the table, and the captions that each way chooses."""
    first = [one.candidates.texts[0] for one in drawn]
    judged = judge.judge(first)
    baseline = [row["cider_d"] for row in judged]
    table: list[Row] = [
        {"chosen_by": "first as drawn", "filter": "none", **means(judged)},
        {"chosen_by": "mean of all", "filter": "none", **means(every_candidate(drawn, judge))},
    ]
    chosen: list[Row] = [{**table[0], "captions": first}]
    detector = _Remembering(load_detector(args.error_detector, args.error_encoder))
    by_filter = COUNTED_BY_FILTER if args.error_detector == RULES else COUNTED_BY_FILTER[:1]
    ways = list(choices(args, drawn[0].candidates.log_likelihoods is not None))
    for choice in tqdm(ways, desc="choosing", unit="way"):
        captions = [choose(captioner, one, choice, detector) for one in drawn]
        judged = judge.judge(captions)
        numbers = means(judged)
        if choice.filter != "none":
            numbers |= dict.fromkeys(by_filter)
        gain = bootstrap_mean_difference([row["cider_d"] for row in judged], baseline)
        interval = f"{gain.low:+.3f} to {gain.high:+.3f}"
        table.append({**choice.row(), **numbers, "gain": gain.estimate, "interval": interval})
        chosen.append({**table[-1], "captions": captions})
    return table, chosen


def every_candidate(drawn: Sequence[Drawn], judge: Judge) -> list[Row]:
    """What all candidates are worth, so many of each scene: what a random one is on average."""
    count = min(len(one.candidates.texts) for one in drawn)
    return [
        row
        for place in range(count)
        for row in judge.judge([one.candidates.texts[place] for one in drawn])
    ]


def choose(captioner: Any, drawn: Drawn, choice: Choice, detector: _Remembering) -> str:
    """The caption that a way of choosing takes; "" where no candidate has a word."""
    if choice.filter == "errors":
        ranking = RankingSettings(choice.weights, choice.normalisation, ERROR_THRESHOLD, detector)
        _, best = Ranker(captioner.scorer, ranking).best([drawn.candidates], [1], 1)
        return best[0].text if best else ""
    scores = hybrid_scores(
        choice.weights,
        choice.normalisation,
        drawn.cosines,
        drawn.candidates.log_likelihoods,
        drawn.agreements,
    )
    return drawn.candidates.texts[int(scores.argmax())]


class _Remembering:
    """A detector that is asked once about each caption, not once for every weight."""

    def __init__(self, detector: ErrorDetector) -> None:
        self.detector, self._kept = detector, dict[str, float]()

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        """The detector's."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._kept]
        self._kept.update(zip(new, self.detector.probabilities(new), strict=True))
        return [self._kept[caption] for caption in captions]


if __name__ == "__main__":
    run_main(main)
