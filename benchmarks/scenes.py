"""Quality and diversity of the captions of 500 fixed validation scenes.

    python benchmarks/scenes.py --output benchmarks/results/scenes.json.gz
    python benchmarks/scenes.py --limit 50 --steps 1 8              # a quick look
    python benchmarks/scenes.py --guidance-scale 1.5 --num-candidates 5
    python benchmarks/scenes.py --clips none                        # synthesizers only

CIDEr-D is scored against the five references of each scene, on all scenes together. First: of
the best-ranked caption. Mean, best: over the captions of a clip; best knows the references.
Shuffled: every clip gets the captions of another clip's sound. (The captions of a sound do not
depend on the other clips, so exchanging captions and exchanging sounds give the same.)
Random: of the first candidate as sampled, before any ranking or filtering; the rows "candidates"
hold the counts over all candidates. The row "references" holds the references against one another
(each against the other four, so with fewer references than the rows above).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from common import (
    SYNONYMS,
    Captioner,
    Row,
    add_clips,
    add_steps,
    base_parser,
    check_output,
    derangement,
    in_chunks,
    load_captioner,
    machine_line,
    markdown_table,
    report,
    run_captioner,
    run_main,
    texts,
    validation_scenes,
    write_report,
)
from tqdm import tqdm

from dac_diffusion.metrics.cider import CiderD, cider_d
from dac_diffusion.metrics.diversity import distinct_n_within_clip, vocabulary_size
from dac_diffusion.metrics.event_naming import EventNamer, load_event_namer
from dac_diffusion.metrics.wellformedness import wellformedness

QUALITY = {
    "system": "captions",
    "num_steps": "steps",
    "cider_d": "CIDEr-D first|.3f",
    "mean_cider_d": "mean of the captions|.3f",
    "best_cider_d": "best of the captions|.3f",
    "random_cider_d": "random candidate|.3f",
    "shuffled_cider_d": "shuffled audio|.3f",
    "events_named": "events named, first|.1%",
    "shuffled_events_named": "shuffled|.1%",
    "distinct_2_within_clip": "distinct-2 within clip|.3f",
    "vocabulary": "vocabulary",
}
FORM = {
    "system": "captions",
    "num_steps": "steps",
    "captions": "number",
    "empty": "empty|.2%",
    "mean_words": "mean words|.2f",
    "length_ratio": "of the references'|.1%",
    "repeated_bigram": "repeated bigram|.2%",
    "doubled_word": "doubled word|.2%",
    "function_word_ending": "ends on function word|.2%",
    "distinct_2_within_clip": "distinct-2 within clip|.3f",
    "duplicates": "duplicates|.2%",
}


def main() -> None:
    parser = base_parser(__doc__)
    add_steps(parser)
    add_clips(parser)
    parser.add_argument("--limit", type=int, default=500, help="number of scenes")
    parser.add_argument("--scene-seed", type=int, default=0)
    args = parser.parse_args()
    check_output(args.output)
    captioner = load_captioner(args)
    scenes, raw = caption_scenes(captioner, args)
    namer = load_event_namer(SYNONYMS)
    quality, form = score(scenes, raw, namer, args)
    print(markdown_table(quality, QUALITY))
    print()
    print(markdown_table(form, FORM))
    print(f"\n{len(scenes)} scenes; {machine_line()}")
    content = report("scenes", args, quality + form, {"scenes": scenes, "captions": raw})
    write_report(args.output, content)


def caption_scenes(captioner: Captioner, args: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """The scenes (labels, relation, references), and their captions at every number of steps."""
    clips = None if str(args.clips) == "none" else args.clips
    dataset = validation_scenes(clips, args.scene_seed)
    scenes: list[Row] = []
    raw: list[Row] = []
    with tqdm(total=args.limit * len(args.steps), desc="scenes", unit="clip") as bar:
        for examples in in_chunks(dataset, args.limit):
            first = len(scenes)
            for example in examples:
                labels = sorted({event.label for event in example.scene.events})
                row = {"scene": len(scenes), "labels": labels, "relation": example.scene.relation}
                scenes.append({**row, "references": list(example.captions)})
            sounds = [(e.waveform, e.sampling_rate) for e in examples]
            for steps in args.steps:
                for index, captioned in enumerate(run_captioner(captioner, sounds, steps, args)):
                    raw.append({"scene": first + index, "num_steps": steps, **captioned})
                bar.update(len(examples))
    return scenes, raw


def score(
    scenes: Sequence[Row], raw: Sequence[Row], namer: EventNamer, args: argparse.Namespace
) -> tuple[list[Row], list[Row]]:
    """The rows of the two tables: quality, and well-formedness."""
    references = [scene["references"] for scene in scenes]
    scorer = CiderD(references)
    quality, form = [], []
    for steps in args.steps:
        rows = sorted((r for r in raw if r["num_steps"] == steps), key=lambda r: r["scene"])
        captions = [texts(row) for row in rows]
        candidates = [row["candidates"] for row in rows]
        quality.append(quality_row(steps, captions, candidates, scenes, scorer, namer, args.seed))
        form.append(form_row("ranked", steps, captions, references))
        form.append(form_row("candidates", steps, candidates, references))
    quality.append(reference_row(references))
    form.append(form_row("references", None, references, references))
    return quality, form


def quality_row(
    num_steps: int,
    captions: Sequence[list[str]],
    candidates: Sequence[list[str]],
    scenes: Sequence[Row],
    scorer: CiderD,
    namer: EventNamer,
    seed: int,
) -> Row:
    """CIDEr-D, events named and diversity at one number of steps."""
    scores = [[scorer.score(text, i) for text in clip] for i, clip in enumerate(captions)]
    others = derangement(len(captions), seed)
    first = [clip[0] for clip in captions]
    exchanged = [first[other] for other in others]
    return {
        "system": "ranked",
        "num_steps": num_steps,
        "cider_d": _mean([clip[0] for clip in scores]),
        "mean_cider_d": _mean([_mean(clip) for clip in scores]),
        "best_cider_d": _mean([max(clip) for clip in scores]),
        "random_cider_d": _mean([scorer.score(c[0], i) for i, c in enumerate(candidates)]),
        "shuffled_cider_d": _mean([scorer.score(text, i) for i, text in enumerate(exchanged)]),
        "events_named": _events_named(first, scenes, namer),
        "shuffled_events_named": _events_named(exchanged, scenes, namer),
        "distinct_2_within_clip": distinct_n_within_clip(captions, 2),
        "vocabulary": vocabulary_size([text for clip in captions for text in clip]),
    }


def reference_row(references: Sequence[list[str]]) -> Row:
    """The references measured like captions: number j of every clip against the other ones."""
    held_out = []
    for j in range(len(references[0])):
        rest = [[text for k, text in enumerate(clip) if k != j] for clip in references]
        held_out.append(cider_d([clip[j] for clip in references], rest)[1])
    by_clip = list(zip(*held_out, strict=True))
    return {
        "system": "references",
        "num_steps": None,
        "cider_d": _mean(held_out[0]),
        "mean_cider_d": _mean([_mean(clip) for clip in by_clip]),
        "best_cider_d": _mean([max(clip) for clip in by_clip]),
        "distinct_2_within_clip": distinct_n_within_clip(references, 2),
        "vocabulary": vocabulary_size([text for clip in references for text in clip]),
    }


def form_row(
    system: str,
    num_steps: int | None,
    captions: Sequence[list[str]],
    references: Sequence[list[str]],
) -> Row:
    """Well-formedness over all captions of all clips; distinct-2 over as many as references."""
    form = wellformedness([text for clip in captions for text in clip])
    reference_words = wellformedness([text for clip in references for text in clip]).mean_words
    same_number = [clip[: len(references[0])] for clip in captions]
    different = sum(len(set(clip)) for clip in captions)
    return {
        "system": system,
        "num_steps": num_steps,
        **asdict(form),
        "length_ratio": form.mean_words / reference_words,
        "distinct_2_within_clip": distinct_n_within_clip(same_number, 2),
        "duplicates": 1 - different / form.captions,
    }


def _events_named(captions: Sequence[str], scenes: Sequence[Row], namer: EventNamer) -> float:
    pairs = list(zip(captions, (scene["labels"] for scene in scenes), strict=True))
    named = sum(namer.named_share([text], labels) * len(labels) for text, labels in pairs)
    return named / sum(len(labels) for _, labels in pairs)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    run_main(main)
