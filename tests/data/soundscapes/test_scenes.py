import json
from dataclasses import FrozenInstanceError, asdict

import pytest

from dac_diffusion.data.scene_cache import scene_from_dict
from dac_diffusion.data.soundscapes.scenes import PlacedEvent, Scene

SCENE = Scene(
    (
        PlacedEvent("dog", 0.5, 1.25, 3, "near"),
        PlacedEvent("rain", 0.0, 6.0, role="background"),
    ),
    "background",
    6.0,
)


def test_a_scene_survives_json() -> None:
    assert scene_from_dict(json.loads(json.dumps(asdict(SCENE)))) == SCENE


def test_a_scene_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        SCENE.seconds = 5.0
