"""Procedural sound events: one function per label, all with the same two arguments."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dac_diffusion.data.soundscapes.synthesizers import (
    alarms,
    electronic,
    machines,
    musical,
    nature,
    percussive,
)

Synthesizer = Callable[[np.random.Generator, int], NDArray[np.float32]]

# label -> (rng, sampling_rate) -> (T,) mono float32, one occurrence, peak between 0.3 and 1
SYNTHESIZERS: dict[str, Synthesizer] = {
    "alarm_bell": alarms.alarm_bell,
    "bouncing_ball": percussive.bouncing_ball,
    "bubbling": nature.bubbling,
    "buzzer": electronic.buzzer,
    "car_horn": machines.car_horn,
    "church_bells": alarms.church_bells,
    "clapping": percussive.clapping,
    "clock_alarm": alarms.clock_alarm,
    "clock_tick": percussive.clock_tick,
    "crackling_fire": nature.crackling_fire,
    "crickets": nature.crickets,
    "door_wood_knock": percussive.door_wood_knock,
    "doorbell": alarms.doorbell,
    "drum_beat": percussive.drum_beat,
    "electric_hum": electronic.electric_hum,
    "electronic_beep": electronic.electronic_beep,
    "engine": machines.engine,
    "footsteps": percussive.footsteps,
    "heartbeat": percussive.heartbeat,
    "helicopter": machines.helicopter,
    "laser_zap": electronic.laser_zap,
    "morse_code": electronic.morse_code,
    "music_box": musical.music_box,
    "organ_chord": musical.organ_chord,
    "plucked_string": musical.plucked_string,
    "rain": nature.rain,
    "sea_waves": nature.sea_waves,
    "siren": alarms.siren,
    "sonar_ping": electronic.sonar_ping,
    "static_noise": electronic.static_noise,
    "telephone_ringing": alarms.telephone_ringing,
    "thunderstorm": nature.thunderstorm,
    "train": machines.train,
    "water_drops": nature.water_drops,
    "whistling": musical.whistling,
    "wind": nature.wind,
}
