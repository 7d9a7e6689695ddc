"""Captions of the benchmark clips by each setting, kept on disk: raw output, and to go on from."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import Row, in_chunks, use_threads, validation_scenes
from event_naming import read_val_clips
from stopwatch import without_likelihood
from systems import Setting
from tqdm import tqdm

from dac_diffusion.captioning.pretrained import find_checkpoint
from dac_diffusion.errors import DacError
from dac_diffusion.files import atomic_write


def caption_all(setting: Setting, args: argparse.Namespace) -> dict[str, list[Row]]:
    """Captions of the scenes and of the recordings, from an earlier run where there are any."""
    path = args.folder / "captions" / f"{setting.key}.jsonl"
    head = {
        "setting": asdict(setting),
        "weights": fingerprint(setting.model),
        "scenes": args.limit,
        "scene_seed": args.scene_seed,
        "seed": args.seed,
        "dtype": args.dtype,
        "with_recordings": str(args.clips) != "none",
    }
    kept = read_captions(path, head)
    if kept is None:
        kept = make_captions(setting, args)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            for row in [head, *kept]:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    names = ("scenes", "recordings")
    return {name: [row for row in kept if row["set"] == name] for name in names}


def scene_references(args: argparse.Namespace) -> list[list[str]]:
    """The reference captions of the scenes, in order."""
    clips = None if str(args.clips) == "none" else args.clips
    chunks = in_chunks(validation_scenes(clips, args.scene_seed), args.limit)
    return [list(example.captions) for examples in chunks for example in examples]


def read_captions(path: Path, head: Row) -> list[Row] | None:
    """The captions in a file that was made by the same setting and weights, else None."""
    if not path.is_file():
        return None
    first, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return rows if first == json.loads(json.dumps(head)) else None


def make_captions(setting: Setting, args: argparse.Namespace) -> list[Row]:
    """Caption everything with one setting."""
    from dac_diffusion.systems import load_captioner

    use_threads(args)
    captioner = load_captioner(setting.model, args.dtype)
    if not setting.ranked:
        captioner = without_likelihood(captioner)
    clips = None if str(args.clips) == "none" else args.clips
    recordings = [] if clips is None else read_val_clips(clips)
    rows: list[Row] = []
    bar = tqdm(total=args.limit + len(recordings), desc=setting.key, unit="clip", leave=False)
    for examples in in_chunks(validation_scenes(clips, args.scene_seed), args.limit):
        sounds = [(e.waveform, e.sampling_rate) for e in examples]
        for texts in caption(captioner, setting, sounds, args):
            rows.append({"set": "scenes", "name": f"scene {len(rows)}", "captions": texts})
        bar.update(len(examples))
    files = [args.clips / clip["file"] for clip in recordings]
    for clip, texts in zip(recordings, caption(captioner, setting, files, args), strict=True):
        label = clip["label"]
        rows.append({"set": "recordings", "name": clip["file"], "captions": texts, "label": label})
    bar.update(len(recordings))
    bar.close()
    return rows


def caption(
    captioner: Any, setting: Setting, sounds: Sequence[Any], args: argparse.Namespace
) -> list[list[str]]:
    """K captions of each sound, as drawn or ranked.

    Raises DacError where one was not captioned.
    """
    if not sounds:
        return []
    results = captioner(list(sounds), seed=args.seed, progress=False, **setting.arguments())
    captions = []
    for result in results:
        if result.error is not None:
            raise DacError(f"not captioned, so no result: {result.error}")
        captions.append(setting.texts(result) or [""])
    return captions


def fingerprint(model: str) -> str:
    """A hash of a checkpoint's weights and settings, so that captions of others are not reused."""
    digest = hashlib.sha256()
    folder = find_checkpoint(model)
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".safetensors"):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
