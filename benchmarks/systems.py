"""The captioners and settings that are compared, and how each is called."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common import FOLDER

STEPS = (1, 2, 4, 8, 16)
GUIDANCE_SCALES = (1.5, 2.5)
NOISE_SCALES = (0.4, 0.7, 1.0)
TEMPERATURES = (0.5, 0.7, 1.0)
RANKED_CANDIDATES = 10  # what ranked settings choose their five captions from


@dataclass(frozen=True)
class Setting:
    """One row of the tables: a system, and what its captioner is called with.

    call: arguments of the captioner beside audio and seed. num_captions: K per clip, taken as they
    are drawn, or, where `ranked`, chosen and ordered by audio-text similarity.
    """

    system: str
    name: str
    model: str
    num_captions: int = 5
    ranked: bool = False
    call: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The setting as part of a file name."""
        return f"{self.system}_{self.name}_K{self.num_captions}".replace(", ", "_").replace(
            " ", "_"
        )

    def arguments(self) -> dict[str, Any]:
        """What the captioner is called with.

        Unranked captions are read from the candidates, so only one distinct one is asked for:
        otherwise the captioner would draw again where some are equal.
        """
        if self.ranked:
            counts = {"num_captions": self.num_captions, "num_candidates": RANKED_CANDIDATES}
        else:
            counts = {"num_captions": 1, "num_candidates": self.num_captions}
        return {**counts, **self.call}


def fixed_length(settings: Sequence[Setting], tokens: int | None) -> list[Setting]:
    """The settings so that every caption has this many tokens; None leaves them as they are.

    The autoregressive captioner is made to write them. The diffusion captioner's network always
    computes all its positions, whatever the captions' length, so that nothing changes for it.
    """
    if tokens is None:
        return list(settings)
    lengths = {"min_length": tokens, "max_length": tokens}
    return [
        replace(s, call={**s.call, **lengths}) if s.system == "autoregressive" else s
        for s in settings
    ]


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """The options of every script that compares the systems."""
    parser.add_argument("--autoregressive", default="builtin-autoregressive", help="like --model")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--folder", type=Path, default=FOLDER / "results", help="for the results")
    parser.add_argument("--quick", action="store_true", help="a small part of everything")


def diffusion_settings(model: str, num_captions: int, steps: tuple[int, ...]) -> list[Setting]:
    """The diffusion captioner at several numbers of steps."""
    return [
        Setting("diffusion", _steps(n), model, num_captions, call={"num_steps": n}) for n in steps
    ]


def autoregressive_settings(model: str, num_captions: int) -> list[Setting]:
    """The autoregressive captioner by all decoding methods that give this many captions."""
    methods = ["nucleus", "diverse_beam"] if num_captions > 1 else ["greedy", "nucleus"]
    beams = max(4, num_captions)
    settings = [
        Setting("autoregressive", m.replace("_", " "), model, num_captions, call={"decoding": m})
        for m in methods
    ]
    call = {"decoding": "beam", "num_beams": beams}
    beam = Setting("autoregressive", f"beam {beams}", model, num_captions, call=call)
    return [settings[0], beam, *settings[1:]]


def ranked_settings(diffusion: str, autoregressive: str) -> list[Setting]:
    """Five captions chosen from ten by audio-text similarity, of either system."""
    return [
        Setting("diffusion", "8 steps, ranked", diffusion, 5, True, {"num_steps": 8}),
        Setting("autoregressive", "nucleus, ranked", autoregressive, 5, True,
                {"decoding": "nucleus"}),
    ]  # fmt: skip


def sweep_settings(diffusion: str, autoregressive: str) -> list[Setting]:
    """Guidance, noise scale and temperature, for the trade of quality against diversity."""
    sweeps = []
    for scale in GUIDANCE_SCALES:
        call: dict[str, Any] = {"num_steps": 8, "guidance_scale": scale}
        sweeps.append(Setting("diffusion", f"8 steps, guidance {scale}", diffusion, call=call))
    for scale in NOISE_SCALES:
        call = {"num_steps": 8, "initial_noise_scale": scale}
        sweeps.append(Setting("diffusion", f"8 steps, noise {scale}", diffusion, call=call))
    for temperature in TEMPERATURES:
        call = {"decoding": "nucleus", "temperature": temperature, "top_p": 1.0}
        name = f"sampling, temperature {temperature}"
        sweeps.append(Setting("autoregressive", name, autoregressive, call=call))
    return sweeps


def _steps(number: int) -> str:
    return f"{number} step{'s' * (number > 1)}"
