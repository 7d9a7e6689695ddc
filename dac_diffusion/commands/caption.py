"""`dac-diffusion caption`: captions for recordings and folders of recordings."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dac_diffusion.commands.caption_formats import WRITERS
from dac_diffusion.errors import ConfigError, DacError
from dac_diffusion.ranking.detectors import CHOICES, CHOICES_HELP, RULES, load_detector

if TYPE_CHECKING:
    from dac_diffusion.captioner import ClipCaptions
    from dac_diffusion.ranking.error_filter import ErrorDetector
    from dac_diffusion.systems import Captioner

SCHEDULERS = ("default", "ddim", "dpm++")
# Options that only one kind of captioner has.
DIFFUSION_OPTIONS = ("num_steps", "guidance_scale", "initial_noise_scale", "scheduler",
                     "refined_share", "collapse_repeats")  # fmt: skip
AUTOREGRESSIVE_OPTIONS = ("decoding", "num_beams", "temperature", "top_p")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = commands.add_parser("caption", help="caption recordings and folders of recordings")
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="a recording, or a folder to search")
    add(
        "--model",
        default="builtin",
        help="builtin, builtin-autoregressive, a checkpoint folder or a Hub id (builtin)",
    )
    add("--num-captions", type=int, default=5, help="captions of each recording (5)")
    add("--num-candidates", type=int, help="candidates to choose them from (the checkpoint's)")
    add("--num-steps", type=int, help="denoising steps (the checkpoint's)")
    add("--guidance-scale", type=float, help="above 1: closer to the audio, half as fast")
    add("--initial-noise-scale", type=float, help="lower: safer, less diverse (the checkpoint's)")
    add("--refined-share", type=float, help="share of the words that is drawn twice; twice as slow")
    add(
        "--collapse-repeats",
        action=argparse.BooleanOptionalAction,
        help="write a word once that stands twice in a row, and say how many were taken out",
    )
    add("--scheduler", help=f"{', '.join(SCHEDULERS)} (default)")
    add("--decoding", help="of an autoregressive model: greedy, beam, nucleus, diverse_beam")
    add("--num-beams", type=int, help="of beam and diverse_beam (the checkpoint's)")
    add("--temperature", type=float, help="of nucleus sampling (the checkpoint's)")
    add("--top-p", type=float, help="of nucleus sampling (the checkpoint's)")
    _add_ranking_options(parser)
    add("--datastore", type=Path, help="of a model that looks captions up (RECAP), not its own")
    add("--seed", type=int, default=0, help="the same seed gives the same captions (0)")
    add("--format", choices=sorted(WRITERS), default="text", help="of the output (text)")
    add("--output", type=Path, metavar="FILE", help="write here; appears once it is complete")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add(
        "--dtype",
        default="auto",
        help="auto, float32, bfloat16 (auto: the faster one)",
    )
    add("--batch-size", type=int, default=32, help="windows taken into memory at a time (32)")
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def _add_ranking_options(parser: argparse.ArgumentParser) -> None:
    """What orders the candidates; both kinds of captioners have it."""
    add = parser.add_argument
    add("--audio-text-weight", type=float, help="of the cosine in the score (the checkpoint's)")
    add("--likelihood-weight", type=float, help="of the model's own log-likelihood (same)")
    add(
        "--agreement-weight",
        type=float,
        help="of the agreement with the other candidates (same), for instance 2",
    )
    add(
        "--redundancy-weight",
        type=float,
        help="captions after the first are chosen to differ from those before them (same)",
    )
    add("--score-normalisation", help="of the first three before they are weighted: none, z_score")
    add(
        "--error-threshold",
        type=float,
        help="candidates with errors of language come last (the checkpoint's), 0.9 as a rule "
        "(1: off)",
    )
    add(
        "--error-detector",
        metavar=CHOICES,
        help=f"what finds the errors: {CHOICES_HELP} (the checkpoint's, {RULES})",
    )
    add("--error-encoder", type=Path, metavar="FOLDER", help="the BERT of FENSE's checkpoint")


def run(arguments: argparse.Namespace) -> list[str]:
    """Caption all inputs; returns the errors of those that could not be captioned."""
    if arguments.scheduler not in (None, *SCHEDULERS):
        raise ConfigError(
            f"--scheduler {arguments.scheduler}: unknown, use one of {', '.join(SCHEDULERS)}"
        )
    with _open_output(arguments.output) as file:  # first: a wrong folder shows before the work
        detector = _load_detector(arguments)
        captioner = load_captioner(arguments)
        write = WRITERS[arguments.format](file)
        started = time.perf_counter()
        captioned, errors = 0, []

        def take(result: ClipCaptions) -> None:
            nonlocal captioned
            if result.error is None:
                write(result)
                captioned += 1
            else:
                errors.append(result.error)

        caption_paths(captioner, arguments, detector, take)
        seconds = time.perf_counter() - started
        if arguments.output is not None and not captioned:
            raise DacError("; ".join(errors) + f"; {arguments.output} was not written")
        if arguments.format == "text":
            file.write(f"{captioned} captioned in {seconds:.2f} s\n")
    return errors


def caption_paths(
    captioner: Captioner,
    arguments: argparse.Namespace,
    error_detector: ErrorDetector | None,
    on_result: Callable[[ClipCaptions], None],
) -> None:
    """Call the captioner with the options of its kind."""
    from dac_diffusion.captioner import DiffusionCaptioner

    paths = list(arguments.paths)
    progress = False if arguments.quiet else None
    if isinstance(captioner, DiffusionCaptioner):
        captioner(
            paths,
            num_captions=arguments.num_captions,
            num_candidates=arguments.num_candidates,
            num_steps=arguments.num_steps,
            guidance_scale=arguments.guidance_scale,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            initial_noise_scale=arguments.initial_noise_scale,
            refined_share=arguments.refined_share,
            collapse_repeats=arguments.collapse_repeats,
            audio_text_weight=arguments.audio_text_weight,
            likelihood_weight=arguments.likelihood_weight,
            agreement_weight=arguments.agreement_weight,
            redundancy_weight=arguments.redundancy_weight,
            score_normalisation=arguments.score_normalisation,
            error_threshold=arguments.error_threshold,
            error_detector=error_detector,
            progress=progress,
            on_result=on_result,
        )
    else:
        captioner(
            paths,
            num_captions=arguments.num_captions,
            num_candidates=arguments.num_candidates,
            decoding=arguments.decoding,
            num_beams=arguments.num_beams,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            audio_text_weight=arguments.audio_text_weight,
            likelihood_weight=arguments.likelihood_weight,
            agreement_weight=arguments.agreement_weight,
            redundancy_weight=arguments.redundancy_weight,
            score_normalisation=arguments.score_normalisation,
            error_threshold=arguments.error_threshold,
            error_detector=error_detector,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            progress=progress,
            on_result=on_result,
        )


def _load_detector(arguments: argparse.Namespace) -> ErrorDetector | None:
    """The detector that --error-detector asks for; None: the captioner's own."""
    name, encoder = arguments.error_detector, arguments.error_encoder
    if name is None and encoder is None:
        return None
    options = "--error-detector", "--error-encoder"
    return load_detector(name or RULES, encoder, choose_device(arguments.device), options)


def load_captioner(arguments: argparse.Namespace) -> Captioner:
    """The captioner that --model, --device, --dtype and --scheduler ask for."""
    device = choose_device(arguments.device)  # before the seconds that loading takes
    from dac_diffusion import systems
    from dac_diffusion.captioner import DiffusionCaptioner
    from dac_diffusion.libraries import quiet_libraries

    captioner = systems.load_captioner(
        arguments.model, arguments.dtype, device, datastore=arguments.datastore
    )
    is_diffusion = isinstance(captioner, DiffusionCaptioner)
    for option in AUTOREGRESSIVE_OPTIONS if is_diffusion else DIFFUSION_OPTIONS:
        if getattr(arguments, option) is not None:
            kind = "a diffusion captioner" if is_diffusion else "an autoregressive captioner"
            name = option.replace("_", "-")
            raise ConfigError(f"--{name}: {arguments.model} is {kind}, which has no such setting")
    if arguments.scheduler not in (None, "default"):
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

        stock = DDIMScheduler if arguments.scheduler == "ddim" else DPMSolverMultistepScheduler
        with quiet_libraries():  # it would complain about settings that only our scheduler has
            captioner.scheduler = stock.from_config(captioner.scheduler.config)
    return captioner


def choose_device(name: str) -> str:
    """A device that is there; "auto" prefers an accelerator. Raises ConfigError for another."""
    import torch

    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(kind for kind, available in present.items() if available)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: unknown, use auto, cpu, cuda or mps") from error
    enough = device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()
    if not (present.get(device.type, False) and enough):
        raise ConfigError(f"--device {name}: this machine has none; use --device auto")
    return name


def _open_output(path: Path | None) -> AbstractContextManager[IO[str]]:
    if path is None:
        return nullcontext(sys.stdout)
    from dac_diffusion.files import atomic_write

    return atomic_write(path)
