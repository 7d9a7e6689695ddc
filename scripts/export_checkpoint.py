"""Write a trained captioner in bfloat16, as the built-in checkpoint is kept.

    python scripts/export_checkpoint.py runs/soundscapes dac_diffusion/builtin --num-candidates 10

Takes the folder of a training, or of any captioner; copies the training's config beside it. Files
already in the output folder (model card, licence, examples) stay.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.errors import DacError
from dac_diffusion.files import atomic_write, make_folder

CONFIG = "config.yaml"


def export(source: Path, target: Path, settings: dict[str, float]) -> None:
    """Load a captioner, set its defaults, and save it in bfloat16."""
    captioner = DiffusionCaptioner.from_pretrained(source, "bfloat16")
    captioner.register_to_config(**settings)
    captioner.save_pretrained(make_folder(target))
    for path in target.glob("*/config.json"):
        # diffusers notes where on this machine the weights came from.
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("_name_or_path", None)
        with atomic_write(path) as file:
            file.write(json.dumps(content, indent=2, sort_keys=True) + "\n")
    if (source / CONFIG).exists():
        shutil.copyfile(source / CONFIG, target / CONFIG)


def main() -> int:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description="Write a trained captioner in bfloat16.")
    parser.add_argument("source", type=Path, help="the output folder of a training, or a captioner")
    parser.add_argument("target", type=Path)
    parser.add_argument("--num-steps", type=int, default=8)
    parser.add_argument("--num-candidates", type=int, default=10)
    parser.add_argument("--initial-noise-scale", type=float, default=1.0)
    parser.add_argument("--likelihood-weight", type=float, default=0.2)
    arguments = parser.parse_args()
    settings = {k: v for k, v in vars(arguments).items() if k not in ("source", "target")}
    try:
        export(arguments.source, arguments.target, settings)
    except DacError as error:
        print(f"export_checkpoint: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
