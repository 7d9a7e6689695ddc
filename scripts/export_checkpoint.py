"""Write a trained captioner in bfloat16, as the built-in checkpoint is kept.

    python scripts/export_checkpoint.py runs/soundscapes dac_diffusion/builtin --num-candidates 10

Takes the folder of a training, or of any captioner; copies the training's config beside it. Files
already in the output folder (model card, licence, examples) stay.
"""

import argparse
import shutil
import sys
from pathlib import Path

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.errors import DacError
from dac_diffusion.files import make_folder

CONFIG = "config.yaml"


def export(source: Path, target: Path, num_steps: int, num_candidates: int) -> None:
    """Load a captioner, set its defaults, and save it in bfloat16."""
    captioner = DiffusionCaptioner.from_pretrained(source, "bfloat16")
    captioner.register_to_config(num_steps=num_steps, num_candidates=num_candidates)
    captioner.save_pretrained(make_folder(target))
    if (source / CONFIG).exists():
        shutil.copyfile(source / CONFIG, target / CONFIG)


def main() -> int:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description="Write a trained captioner in bfloat16.")
    parser.add_argument("source", type=Path, help="the output folder of a training, or a captioner")
    parser.add_argument("target", type=Path)
    parser.add_argument("--num-steps", type=int, default=8)
    parser.add_argument("--num-candidates", type=int, default=10)
    arguments = parser.parse_args()
    try:
        export(arguments.source, arguments.target, arguments.num_steps, arguments.num_candidates)
    except DacError as error:
        print(f"export_checkpoint: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
