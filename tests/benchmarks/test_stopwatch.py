"""What is timed, counted and remembered of a call."""

import time
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from tests.helpers import noise, tiny_autoregressive, tiny_captioner


def test_the_stopwatch_tells_the_parts_apart() -> None:
    from stopwatch import Stopwatch

    class Work:
        def outer(self) -> int:
            time.sleep(0.02)
            return self.inner() + 1

        def inner(self) -> int:
            time.sleep(0.05)
            return 1

    work = Work()
    watch = Stopwatch(torch.device("cpu"))
    with watch.watching({"outer": [(work, "outer")], "inner": [(Work, "inner")]}):
        assert work.outer() == 2
        assert work.outer() == 2
    before = dict(watch.seconds)
    assert work.outer() == 2
    assert dict(watch.seconds) == before
    assert before["inner"] == pytest.approx(0.1, abs=0.05)
    assert before["outer"] - before["inner"] == pytest.approx(0.04, abs=0.03)


@pytest.mark.parametrize("make", [tiny_captioner, tiny_autoregressive])
def test_the_parts_of_a_call_add_up_to_it(make: Any) -> None:
    from stopwatch import Stopwatch, captioning_parts, parameters_by_part

    captioner = make()
    watch = Stopwatch(captioner.device)
    clips: list[np.ndarray] = [noise(1.0, seed=i) for i in range(3)]
    with watch.watching(captioning_parts(captioner)):
        watch.time("call", lambda: captioner(clips, sampling_rate=32000, num_captions=2))
    seconds = watch.seconds
    parts = sum(seconds[part] for part in ("encoding", "generation", "text", "ranking"))
    assert 0.5 * seconds["call"] < parts <= seconds["call"]
    assert 0 < seconds["features"] < seconds["encoding"]
    scorer = sum(p.numel() for p in captioner.scorer.parameters())
    everything = sum(
        p.numel()
        for component in captioner.components.values()
        if isinstance(component, torch.nn.Module)
        for p in component.parameters()
    )
    counts = parameters_by_part(captioner)
    assert sum(counts.values()) == everything - scorer
    assert counts["encoder"] == sum(p.numel() for p in captioner.encoder.parameters())
    assert "scorer" not in counts


def test_a_front_end_has_one_of_three_names() -> None:
    from stopwatch import front_end

    class Encoder:
        filter_bank = torch.nn.Identity()

    assert front_end(Encoder()) is Encoder.filter_bank
    captioner = tiny_captioner()
    assert front_end(captioner.encoder) is captioner.encoder.log_mel
    with pytest.raises(TypeError, match="int has no spectrogram"):
        front_end(3)


def test_bytes_of_the_weights() -> None:
    from stopwatch import parameters_by_part, weight_bytes

    captioner = tiny_captioner()
    before = weight_bytes(captioner)
    scorer = sum(p.numel() for p in captioner.scorer.parameters())
    parameters = sum(parameters_by_part(captioner).values()) + scorer
    assert before > 4 * parameters  # and buffers
    captioner.to(torch.bfloat16)
    assert 2 * parameters < weight_bytes(captioner) < before - 1.9 * parameters


def test_network_calls_are_the_steps_or_the_tokens() -> None:
    from stopwatch import count_calls, without_likelihood, writing_network

    diffusion = tiny_captioner()
    diffusion.register_to_config(likelihood_weight=0.2)
    diffusion = without_likelihood(diffusion)
    result, calls = count_calls(
        writing_network(diffusion), lambda: diffusion(noise(1.0), 32000, num_steps=3)
    )
    assert calls == 3
    assert result == diffusion(noise(1.0), 32000, num_steps=3)
    autoregressive = tiny_autoregressive()
    call = {"decoding": "greedy", "min_length": 6, "max_length": 6}
    _, calls = count_calls(
        writing_network(autoregressive), lambda: autoregressive(noise(1.0), 32000, **call)
    )
    assert calls == 6


def test_of_a_fixed_length_that_many_tokens_are_counted() -> None:
    from timed_group import count_written

    tokenizer = tiny_captioner().tokenizer
    assert count_written(tokenizer, ["a", "b c"], 14) == {"tokens": 28, "words": None}
    written = count_written(tokenizer, ["a dog barks"], None)
    assert written["words"] == 3
    assert written["tokens"] >= 3


class FakeEvent:
    """Stands in for torch.cuda.Event: its clock is a list of what happened, 1 ms for each."""

    happened: ClassVar[list[str]] = []

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.happened.append("record")
        self.at = len(FakeEvent.happened)

    def synchronize(self) -> None:
        FakeEvent.happened.append("wait")

    def elapsed_time(self, end: "FakeEvent") -> float:
        assert FakeEvent.happened[-1] == "wait", "read before the device was done"
        return float(end.at - self.at)


def test_on_cuda_parts_lie_between_events_and_memory_is_the_most_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stopwatch import Stopwatch, peak_memory

    device = torch.device("cuda")
    happened = FakeEvent.happened
    happened.clear()
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: happened.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: happened.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 123)
    watch = Stopwatch(device)
    assert watch.time("work", lambda: happened.append("call")) is None
    assert happened == ["wait", "record", "call", "record", "wait"]
    assert watch.seconds == {"work": pytest.approx(0.002)}
    happened.clear()
    assert peak_memory(device, lambda: happened.append("call")) == (None, 23.0)
    assert happened == ["reset", "call"]
    assert peak_memory(torch.device("cpu"), lambda: 5) == (5, None)
