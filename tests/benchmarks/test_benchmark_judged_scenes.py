"""What a caption is worth, against numbers by hand."""

from __future__ import annotations

import pytest

from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig, SoundscapeDataset
from dac_diffusion.errors import DataError
from dac_diffusion.metrics.cider import cider_d

LABELS = [["dog", "rain"], ["wind"], ["siren"]]
REFERENCES = [
    ["a dog barks while rain falls", "rain falls and a dog barks"],
    ["wind blows", "the wind is blowing"],
    ["a siren wails", "a siren is wailing"],
]
CAPTIONS = ["a dog barks a dog barks", "the wind is blowing", "a dog barks and a"]


def test_every_number_by_hand() -> None:
    from judged_scenes import Judge, means

    judge = Judge(LABELS, REFERENCES)
    judged = judge.judge(CAPTIONS)
    assert [row["cider_d"] for row in judged] == pytest.approx(cider_d(CAPTIONS, REFERENCES)[1])
    assert [row["named"] for row in judged] == pytest.approx([1, 1, 0])
    assert [row["faults"] for row in judged] == [True, False, True]
    assert [row["errors"] for row in judged] == [True, False, True]
    found = means(judged)
    assert found["cider_d"] == pytest.approx(cider_d(CAPTIONS, REFERENCES)[0])
    assert found["events_named"] == pytest.approx(2 / 4)  # of the events, not of the scenes
    assert found["faults"] == pytest.approx(2 / 3)
    assert found["mean_words"] == pytest.approx((6 + 4 + 5) / 3)
    assert "minilm_similarity" not in found
    # Some of the scenes count with the document frequencies of all.
    assert means(judged[1:2])["cider_d"] == pytest.approx(cider_d(CAPTIONS, REFERENCES)[1][1])


def test_a_caption_is_kept_for_its_own_scene_alone() -> None:
    from judged_scenes import Judge

    judge = Judge(LABELS, REFERENCES)
    same = judge.judge(["wind blows"] * 3)
    assert [row["named"] for row in same] == [0, 1, 0]
    assert [row["cider_d"] > 0 for row in same] == [False, True, False]
    assert judge.judge(["wind blows"] * 3) == same


def test_scenes_of_the_kind_that_is_wanted() -> None:
    from judged_scenes import find_scenes

    dataset = SoundscapeDataset(SoundscapeConfig(), "validation")
    found = find_scenes(dataset, 3, lambda labels: "rain" in labels)
    assert all("rain" in scene.labels for scene in found)
    by_hand = [
        i
        for i in range(200)
        if "rain" in {event.label for event in dataset.example(i).scene.events}
    ][:3]
    assert [scene.references for scene in found] == [
        list(dataset.example(i).captions) for i in by_hand
    ]


def test_scenes_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    import judged_scenes

    monkeypatch.setattr(judged_scenes, "LOOKED_AT", 2)
    dataset = SoundscapeDataset(SoundscapeConfig(), "validation")
    with pytest.raises(DataError, match="only 0 of 4 scenes are of the kind that is wanted"):
        judged_scenes.find_scenes(dataset, 2, lambda labels: False)
