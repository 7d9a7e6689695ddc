"""From whatever a caller passes as audio to decoded recordings, one after another."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dac_diffusion.audio.loading import find_audio_files, load_audio, prepare_waveform
from dac_diffusion.errors import AudioError

# A path to a file or folder, samples, (samples, sampling rate), or a list of these.
AudioInput = str | Path | np.ndarray | tuple[Any, int] | list[Any]

DECODING_THREADS = 4


@dataclass(frozen=True)
class Source:
    """A recording to be read: its name in results and a function that decodes it."""

    file_name: str
    load: Callable[[], np.ndarray]
    path: str = ""


@dataclass(frozen=True)
class Recording:
    """A decoded recording: waveform (T,), or the error that kept it from being decoded."""

    file_name: str
    waveform: np.ndarray | None
    error: AudioError | None = None


def find_sources(
    audio: AudioInput, sampling_rate: int | None, target_rate: int
) -> tuple[list[Source], bool]:
    """The recordings in `audio`, and whether it is a single one rather than a list or folder.

    `sampling_rate` belongs to arrays without a rate of their own; `target_rate` is the encoder's.
    Raises AudioError for a single input that cannot be used, as a folder without recordings.
    """
    if isinstance(audio, list):
        sources = []
        for position, item in enumerate(audio):
            try:
                sources += _sources_of(item, sampling_rate, target_rate, position)
            except AudioError as error:
                sources.append(Source(_name_of(item, position), _raising(error)))
        return _tell_apart(sources), False
    single = not (isinstance(audio, str | Path) and Path(audio).is_dir())
    return _sources_of(audio, sampling_rate, target_rate, 0), single


def decode_ahead(sources: Sequence[Source], threads: int = DECODING_THREADS) -> Iterator[Recording]:
    """Decode recordings in order, a few ahead of the one that is asked for.

    At most twice as many recordings as threads are held, however long the list is.
    """
    if len(sources) == 1:
        yield _decode(sources[0])
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    waiting: deque[Future[Recording]] = deque()
    try:
        for source in sources:
            waiting.append(pool.submit(_decode, source))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Not waiting: after Ctrl-C nobody wants the files that were still to be decoded.
        pool.shutdown(wait=False, cancel_futures=True)


def _decode(source: Source) -> Recording:
    try:
        return Recording(source.file_name, source.load())
    except AudioError as error:
        return Recording(source.file_name, None, error)
    except MemoryError:
        reason = AudioError(f"{source.file_name}: too long for the memory of this machine; cut it")
        return Recording(source.file_name, None, reason)


def _sources_of(
    item: Any, sampling_rate: int | None, target_rate: int, position: int
) -> list[Source]:
    if isinstance(item, str | Path):
        root = Path(item)
        paths = find_audio_files(root)
        relative = root.is_dir()  # names below a folder tell apart files of one name
        return [
            Source(
                path.relative_to(root).as_posix() if relative else path.name,
                partial(load_audio, path, target_rate),
                str(path),
            )
            for path in paths
        ]
    name = _name_of(item, position)
    samples, rate = item if _is_pair(item) else (item, sampling_rate)
    samples = _as_array(samples, name)
    if rate is None:
        raise AudioError(f"{name}: samples without a sampling rate; pass sampling_rate=..., in Hz")
    return [Source(name, lambda: prepare_waveform(samples, int(rate), target_rate, name))]


def _tell_apart(sources: list[Source]) -> list[Source]:
    """Recordings of one name in several folders go by their paths."""
    counts = Counter(source.file_name for source in sources)
    return [
        replace(source, file_name=source.path)
        if counts[source.file_name] > 1 and source.path
        else source
        for source in sources
    ]


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], int | np.integer)


def _as_array(samples: Any, name: str) -> np.ndarray:
    if isinstance(samples, np.ndarray):
        return samples
    if hasattr(samples, "detach"):  # a torch tensor
        return np.asarray(samples.detach().cpu().numpy())
    raise AudioError(
        f"{name}: {type(samples).__name__} is no recording; give a path, a numpy array with "
        "sampling_rate, an (array, sampling rate) pair, or a list of these"
    )


def _name_of(item: Any, position: int) -> str:
    return str(item) if isinstance(item, str | Path) else f"array {position}"


def _raising(error: AudioError) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        raise error

    return load
