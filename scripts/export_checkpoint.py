"""Write a trained captioner in bfloat16, as the built-in checkpoints are kept.

    python scripts/export_checkpoint.py runs/soundscapes dac_diffusion/builtin --num-candidates 10
    python scripts/export_checkpoint.py runs/autoregressive dac_diffusion/builtin_autoregressive \\
        --share-with-builtin

Takes the folder of a training, or of any captioner; copies the training's config beside it. Files
already in the output folder (model card, licence, examples) stay.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from dac_diffusion.captioning.pretrained import BUILTIN, find_checkpoint
from dac_diffusion.errors import CheckpointError, DacError
from dac_diffusion.files import atomic_write, check_replaceable, make_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.systems import load_captioner

CONFIG, INDEX = "config.yaml", "model_index.json"
SETTINGS = {
    "num_steps": int, "num_candidates": int, "initial_noise_scale": float,
    "likelihood_weight": float, "agreement_weight": float, "redundancy_weight": float,
    "temperature": float, "top_p": float, "diversity_penalty": float,
}  # fmt: skip
SHARED = ("encoder", "scorer", "tokenizer")


def export(source: Path, target: Path, settings: dict[str, float], share: bool) -> None:
    """Load a captioner, set its defaults, and save it in bfloat16.

    share: leave out the audio encoder, scorer and tokenizer where they are the built-in ones.
    Raises DataError where a component's folder holds something else than an earlier export.
    """
    captioner = load_captioner(source, "bfloat16")
    captioner.register_to_config(**settings)
    is_earlier_result = (target / INDEX).exists()
    folders = [target / name for name in captioner.components]
    for folder in folders:
        check_replaceable(folder, is_earlier_result)
    with quiet_libraries():
        captioner.save_pretrained(make_folder(target))
    for path in (folder / "config.json" for folder in folders):
        # diffusers notes where on this machine the weights came from.
        if path.exists():
            _edit(path, lambda content: content.pop("_name_or_path", None))
    if share:
        leave_out_shared(target)
    if (source / CONFIG).exists():
        shutil.copyfile(source / CONFIG, target / CONFIG)


def leave_out_shared(target: Path) -> None:
    """Remove what the built-in checkpoint has too, and say so in the index.

    Raises CheckpointError where a component is not the same as the built-in one.
    """
    builtin = find_checkpoint(BUILTIN)
    for name in SHARED:
        if not _same(target / name, builtin / name):
            raise CheckpointError(f"{target / name}: is not the built-in one, so it stays")
    for name in SHARED:
        shutil.rmtree(target / name)
    _edit(target / INDEX, lambda content: content.update(_shared_with=BUILTIN))


def _same(first: Path, second: Path) -> bool:
    if first.name == "tokenizer":
        file = "tokenizer.json"
        return (first / file).read_bytes() == (second / file).read_bytes()
    file = "diffusion_pytorch_model.safetensors"
    ours, theirs = load_file(first / file), load_file(second / file)
    return ours.keys() == theirs.keys() and all(bool((ours[k] == theirs[k]).all()) for k in ours)


def _edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2, sort_keys=True) + "\n")


def main() -> int:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description="Write a trained captioner in bfloat16.")
    parser.add_argument("source", type=Path, help="the output folder of a training, or a captioner")
    parser.add_argument("target", type=Path)
    for name, kind in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help="default of a call")
    parser.add_argument("--share-with-builtin", action="store_true",
                        help="leave out the components that are the built-in ones")  # fmt: skip
    arguments = parser.parse_args()
    given = {name: getattr(arguments, name) for name in SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    try:
        export(arguments.source, arguments.target, settings, arguments.share_with_builtin)
    except DacError as error:
        print(f"export_checkpoint: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
