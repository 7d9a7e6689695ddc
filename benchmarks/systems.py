"""The captioners and settings that are compared, and how each is called."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import FOLDER

from dac_diffusion.captioning.pretrained import INDEX_FILE, find_checkpoint
from dac_diffusion.errors import ConfigError, DacError
from dac_diffusion.saved_models import read_json

if TYPE_CHECKING:
    from dac_diffusion.training.autoregressive import DecodingConfig

STEPS = (1, 2, 4, 8, 16)
GUIDANCE_SCALES = (1.5, 2.5)
NOISE_SCALES = (0.4, 0.7, 1.0)
TEMPERATURES = (0.5, 0.7, 1.0)
RANKED_CANDIDATES = 10  # what ranked settings choose their five captions from
FURTHER_STEPS = (8,)  # of a diffusion captioner given with --also
NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")  # it becomes part of file names
TAKEN_NAMES = ("diffusion", "autoregressive", "references", "people")


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

    def texts(self, result: Any) -> list[str]:
        """The captions of a clip: as they were drawn, or, where `ranked`, best first."""
        ranked = [caption.text for caption in result.captions]
        return (ranked if self.ranked else list(result.candidates))[: self.num_captions]


def fixed_length(settings: Sequence[Setting], tokens: int | None) -> list[Setting]:
    """The settings so that every caption has this many tokens; None leaves them as they are.

    Autoregressive captioners are made to write them. The diffusion captioner's network always
    computes all its positions, whatever the captions' length, so that nothing changes for it.
    """
    if tokens is None:
        return list(settings)
    lengths = {"min_length": tokens, "max_length": tokens}
    return [replace(s, call={**s.call, **lengths}) if "decoding" in s.call else s for s in settings]


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """The options of every script that compares the systems."""
    parser.add_argument("--autoregressive", default="builtin-autoregressive", help="like --model")
    parser.add_argument(
        "--also",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FOLDER",
        help="further captioners in the same tables; each a folder, or whatever --model takes",
    )
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


def further_captioners(also: Sequence[str]) -> dict[str, str]:
    """The checkpoints given as NAME=FOLDER, by their names; raises ConfigError, naming the one."""
    models: dict[str, str] = {}
    taken = {*TAKEN_NAMES}  # in small letters: not every file system tells them from capitals
    for each in also:
        name, equals, model = each.partition("=")
        if not (equals and model and NAME.fullmatch(name)):
            raise ConfigError(
                f"--also {each}: give NAME=FOLDER, the name of letters, digits and any of _ . + -"
            )
        if name.lower() in taken:
            raise ConfigError(f"--also {each}: the tables have a {name} already; choose another")
        taken.add(name.lower())
        models[name] = model
    return models


def check_further(also: Sequence[str]) -> None:
    """Load every further captioner once, so that one that is none is found before the work.

    Raises ConfigError in one line.
    """
    from dac_diffusion.systems import load_captioner

    for name, model in further_captioners(also).items():
        try:
            load_captioner(model)
        except DacError as error:
            raise ConfigError(f"--also {name}={model}: {error}") from error


def further_settings(also: Sequence[str], num_captions: int) -> list[Setting]:
    """How the captioners of --also give this many captions, each by its checkpoint's settings.

    An autoregressive one gives a single caption by greedy decoding, and by the decoding that it was
    saved with if that is another one of its own; several by nucleus sampling and diverse beam
    search. A diffusion captioner takes 8 steps.
    """
    settings: list[Setting] = []
    for name, model in further_captioners(also).items():
        saved = saved_decoding(model)
        if saved is None:
            of_model = diffusion_settings(model, num_captions, FURTHER_STEPS)
        else:
            several = num_captions > 1
            methods = ("nucleus", "diverse_beam") if several else ("greedy",)
            of_model = autoregressive_settings(model, num_captions)
            of_model = [s for s in of_model if s.call["decoding"] in methods]
            of_model += [] if several else own_decoding(model, saved)
        settings += [replace(setting, system=name) for setting in of_model]
    return settings


def further_ranked(also: Sequence[str]) -> list[Setting]:
    """Five captions chosen by what each captioner of --also ranks by."""
    settings = []
    for name, model in further_captioners(also).items():
        saved = saved_decoding(model)
        if saved is None:
            settings.append(Setting(name, "8 steps, ranked", model, 5, True, {"num_steps": 8}))
        else:
            settings.append(replace(ranked_nucleus(model, saved, 5), system=name))
    return settings


def saved_decoding(model: str) -> DecodingConfig | None:
    """How an autoregressive checkpoint decodes unless told otherwise; None for a diffusion one."""
    from dac_diffusion.training.autoregressive import DecodingConfig

    index = read_json(find_checkpoint(model) / INDEX_FILE)
    if index.get("_class_name") != "AutoregressiveCaptioner":
        return None
    known = [each.name for each in fields(DecodingConfig)]
    return DecodingConfig(**{name: index[name] for name in known if name in index})


def own_decoding(model: str, saved: DecodingConfig) -> list[Setting]:
    """A single caption as the checkpoint gives it by itself; none if other rows have that.

    They have greedy decoding, and what is saved where nobody chose: the best of 10 by nucleus
    sampling and similarity, the first caption of the ranked row.
    """
    if saved.decoding == "beam":
        call = {"decoding": "beam", "num_beams": saved.num_beams}
        return [Setting("autoregressive", f"beam {saved.num_beams}", model, 1, call=call)]
    if saved.decoding == "nucleus" and saved != type(saved)():
        return [ranked_nucleus(model, saved, 1)]
    return []


def ranked_nucleus(model: str, saved: DecodingConfig, num_captions: int) -> Setting:
    """Captions chosen from samples by the checkpoint's own weights, out of as many as it takes.

    The weights are given in the call, because timing takes them out of the captioner.
    """
    weights = ("audio_text_weight", "likelihood_weight", "agreement_weight", "error_threshold")
    call = {key: value for key, value in asdict(saved).items() if key in weights}
    if saved.ranking == "likelihood":
        call |= {"audio_text_weight": 0.0, "likelihood_weight": 1.0, "agreement_weight": 0.0}
    by_default = saved.decoding == "nucleus"
    candidates = max(saved.num_candidates, num_captions) if by_default else RANKED_CANDIDATES
    call |= {"decoding": "nucleus", "num_candidates": candidates}
    name = f"nucleus, best of {candidates}"
    if num_captions > 1:
        usual = candidates == RANKED_CANDIDATES
        name = "nucleus, ranked" if usual else f"nucleus, ranked of {candidates}"
    return Setting("autoregressive", name, model, num_captions, True, call)


def _steps(number: int) -> str:
    return f"{number} step{'s' * (number > 1)}"
