"""METEOR and SPICE by their authors' Java programs, which pycocoevalcap ships, and SPIDEr.

The programs are run directly: pycocoevalcap's own wrappers write into the installed package,
download in the middle of a run and never return when Java fails. Captions are cut by the same PTB
tokenizer (Stanford CoreNLP 3.4.1) as in the published evaluations, so values equal pycocoevalcap's.

METEOR: Denkowski and Lavie 2014, version 1.5. SPICE: Anderson et al. 2016, version 1.0; it needs
Java 8 to 14, as it writes its results through the JavaScript engine that Java 15 removed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from dac_diffusion.errors import DacError
from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.metrics.external import missing_files, require_available
from dac_diffusion.metrics.inputs import check_pairs
from dac_diffusion.metrics.java_programs import (
    LOCALE,
    Dialogue,
    java_version,
    ptb_tokenize,
    run_java,
)

TOKENIZER_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
METEOR_JAR = "meteor/meteor-1.5.jar"
METEOR_PARAPHRASES = "meteor/data/paraphrase-en.gz"
SPICE_JAR = "spice/spice-1.0.jar"
SPICE_MODELS = (
    "spice/lib/stanford-corenlp-3.6.0.jar",
    "spice/lib/stanford-corenlp-3.6.0-models.jar",
)
SPICE_JAVA = range(8, 15)
EXTRA = 'pip install "dac-diffusion[aac]"'
CORENLP = (
    "take them from stanford-corenlp-full-2015-12-09.zip, that is Stanford CoreNLP 3.6.0, several "
    "hundred MB"
)


@dataclass(frozen=True)
class Meteor:
    """METEOR 1.5 (0 to 1) by its Java program.

    folder: the package folder of pycocoevalcap, by default the installed one. java: the program.
    """

    folder: Path | None = None
    java: str = "java"

    @property
    def name(self) -> str:
        """The key in results."""
        return "meteor_1.5_java"

    def missing(self) -> list[str]:
        """All that is absent, each with the way out."""
        return _missing(self.java, self.folder, (METEOR_JAR, METEOR_PARAPHRASES, TOKENIZER_JAR))

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """METEOR of each clip; errors as in `corpus_and_scores`."""
        return self.corpus_and_scores(candidates, references)[1]

    def corpus_and_scores(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[float, list[float]]:
        """METEOR of the whole set, and each clip's; a caption without words scores 0.

        Publications report the first, which is computed from summed counts and is not the mean of
        the second. Raises MissingExtraError for what is missing, DataError for lists that do not
        fit together, DacError where Java fails.
        """
        check_pairs(self.name, candidates, references)
        require_available([self])
        folder = _coco_folder(self.folder)
        ours, theirs = ptb_tokenize(candidates, references, self.java, folder / TOKENIZER_JAR)
        command = [self.java, "-Xmx2G", *LOCALE, "-jar", str(folder / METEOR_JAR)]
        with Dialogue("METEOR", [*command, "-", "-", "-stdio", "-l", "en", "-norm"]) as meteor:
            statistics = [
                meteor.ask(" ||| ".join(("SCORE", *group, caption)))
                for caption, group in zip(ours, theirs, strict=True)
            ]
            first = meteor.ask(" ||| ".join(("EVAL", *statistics)))
            values = [float(first), *(float(meteor.next_line()) for _ in ours)]
        return values[-1], values[:-1]


@dataclass(frozen=True)
class Spice:
    """SPICE 1.0 (0 to 1) by its Java program; `folder` and `java` as for METEOR.

    It takes up to 8 GB of memory and all processors.
    """

    folder: Path | None = None
    java: str = "java"

    @property
    def name(self) -> str:
        """The key in results."""
        return "spice_1.0_java"

    def missing(self) -> list[str]:
        """All that is absent, each with the way out."""
        lacking = _missing(self.java, self.folder, (SPICE_JAR, TOKENIZER_JAR))
        lacking += missing_files(_coco_folder(self.folder), SPICE_MODELS, CORENLP)
        version = java_version(self.java)
        if version and version not in SPICE_JAVA:
            lacking.append(
                f"Java {SPICE_JAVA[0]} to {SPICE_JAVA[-1]} and not {version} (install one beside "
                "it, for example Java 11, and give the path of its program as java)"
            )
        return lacking

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """SPICE of each clip; the mean is the published value.

        Raises MissingExtraError for what is missing, DataError for lists that do not fit together,
        DacError where Java fails.
        """
        check_pairs(self.name, candidates, references)
        require_available([self])
        groups = tuple(tuple(group) for group in references)
        return list(_spice(tuple(candidates), groups, self.java, _coco_folder(self.folder)))


@dataclass(frozen=True)
class Spider:
    """SPIDEr: the mean of SPICE and this package's CIDEr-D (Liu et al. 2017), from 0 to 5.5.

    CIDEr-D cuts words as text.words does and not as the PTB tokenizer, so that values differ a
    little from published ones.
    """

    spice: Spice = field(default_factory=Spice)

    @property
    def name(self) -> str:
        """The key in results."""
        return f"spider_{self.spice.name}_cider_d"

    def missing(self) -> list[str]:
        """All that is absent, each with the way out."""
        return self.spice.missing()

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """SPIDEr of each clip; the mean is the published value. Errors as for SPICE."""
        require_available([self])
        graphs = self.spice.score(candidates, references)
        _, words = cider_d(candidates, references)
        return [(first + second) / 2 for first, second in zip(graphs, words, strict=True)]


def _missing(java: str, given: Path | None, files: Sequence[str]) -> list[str]:
    lacking = []
    if java_version(java) is None:
        lacking.append(
            f"Java (the program {java} does not run here; on Debian: "
            "apt-get install default-jre-headless)"
        )
    folder = _coco_folder(given)
    if given is None and not folder.is_dir():
        return [*lacking, f"the package pycocoevalcap ({EXTRA})"]
    return lacking + missing_files(folder, files, f"the folder of pycocoevalcap has them: {EXTRA}")


def _coco_folder(given: Path | None) -> Path:
    """The given folder or that of the installed pycocoevalcap; it may not exist."""
    if given is not None:
        return given
    spec = find_spec("pycocoevalcap")  # runs none of its code
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0] if places else "pycocoevalcap")


@lru_cache(maxsize=1)  # SPICE, SPIDEr and SPIDEr-FL of the same captions run it once
def _spice(
    candidates: tuple[str, ...], references: tuple[tuple[str, ...], ...], java: str, folder: Path
) -> tuple[float, ...]:
    ours, theirs = ptb_tokenize(candidates, references, java, folder / TOKENIZER_JAR)
    clips = [
        {"image_id": index, "test": caption, "refs": group}
        for index, (caption, group) in enumerate(zip(ours, theirs, strict=True))
    ]
    with tempfile.TemporaryDirectory() as temporary:
        question, answer = Path(temporary, "captions.json"), Path(temporary, "scores.json")
        question.write_text(json.dumps(clips), encoding="utf-8")
        # Without its -cache, which needs a native library and 100 GB of address space.
        command = [java, "-Xmx8G", *LOCALE, "-jar", str(folder / SPICE_JAR), str(question)]
        run_java("SPICE", [*command, "-out", str(answer), "-silent"])
        try:
            rows = json.loads(answer.read_text(encoding="utf-8"))
            by_clip = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in rows}
            return tuple(by_clip[index] for index in range(len(clips)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DacError(
                f"SPICE wrote no scores that can be read ({type(error).__name__}: {error}); "
                "check that its Java has 8 GB of memory"
            ) from error
