"""Write the example recordings of the repository: six scenes made by the synthesizers.

    python scripts/make_examples.py [--output dac_diffusion/builtin/examples]

The same seed gives the same scenes; each file is named after what it holds.
"""

import argparse
import re
import sys
from pathlib import Path

import soundfile

from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig, SoundscapeDataset
from dac_diffusion.errors import DacError
from dac_diffusion.files import atomic_folder, check_replaceable

SEED = 7
WANTED = ("single", "single", "sequence", "overlap", "background", "sequence_over_background")
EXAMPLE = re.compile(r"\d_\w+\.ogg")
DEFAULT_OUTPUT = Path(__file__).parents[1] / "dac_diffusion" / "builtin" / "examples"


def write_examples(output: Path) -> list[str]:
    """Write one scene for each entry of WANTED, taking the first that fits; returns the names."""
    dataset = SoundscapeDataset(SoundscapeConfig(seed=SEED), "test")
    check_replaceable(output, all(EXAMPLE.fullmatch(path.name) for path in output.glob("*")))
    names: list[str] = []
    index = 0
    with atomic_folder(output) as partial:
        for relation in WANTED:
            while True:
                example = dataset.example(index)
                index += 1
                if example.scene.relation == relation:
                    break
            names.append("_".join([f"{len(names) + 1}", *(e.label for e in example.scene.events)]))
            path = partial / f"{names[-1]}.ogg"
            soundfile.write(path, example.waveform, example.sampling_rate)
    return names


def main() -> int:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description="Write the example recordings.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    arguments = parser.parse_args()
    try:
        print("\n".join(write_examples(arguments.output)))
    except DacError as error:
        print(f"make_examples: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
