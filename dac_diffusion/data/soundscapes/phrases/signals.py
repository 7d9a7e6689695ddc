"""Phrasings of electronic sounds and of instruments."""

from __future__ import annotations

from dac_diffusion.data.soundscapes.phrases.forms import Clause, EventPhrases, Noun

SIGNALS: dict[str, EventPhrases] = {
    "electronic_beep": EventPhrases(
        clauses=(
            Clause("a device", "beeps", "beeping"),
            Clause("an electronic device", "beeps", "beeping"),
            Clause("a machine", "beeps", "beeping"),
            Clause("an electronic beep", "sounds", "sounding"),
            Clause("a digital tone", "beeps", "beeping"),
            Clause("a timer", "beeps", "beeping"),
        ),
        nouns=(
            Noun("electronic beep", "electronic beeps"),
            Noun("digital beep", "digital beeps"),
            Noun("beeping of a device", article="the"),
        ),
    ),
    "buzzer": EventPhrases(
        clauses=(
            Clause("a buzzer", "sounds", "sounding"),
            Clause("a buzzer", "goes off", "going off"),
            Clause("a buzzer", "buzzes", "buzzing"),
            Clause("an electric buzzer", "sounds", "sounding"),
            Clause("someone", "presses a buzzer", "pressing a buzzer"),
            Clause("a buzzer", "blares", "blaring"),
        ),
        nouns=(
            Noun("buzzer sound", "buzzer sounds"),
            Noun("buzzing of a buzzer", article="the"),
            Noun("blast of a buzzer", "blasts of a buzzer"),
        ),
        adverbs=("harshly",),
    ),
    "drum_beat": EventPhrases(
        clauses=(
            Clause("a drum", "beats", "beating"),
            Clause("someone", "plays a drum", "playing a drum"),
            Clause("a drum", "is played", "being played"),
            Clause("a drummer", "plays a beat", "playing a beat"),
            Clause("someone", "beats a drum", "beating a drum"),
            Clause("drums", "pound", "pounding", plural=True),
        ),
        nouns=(
            Noun("drum beat"),
            Noun("beating of a drum", article="the"),
            Noun("rhythm of a drum", article="the"),
            Noun("drumming", article=""),
        ),
        continuous=True,
        adverbs=("steadily", "rhythmically"),
    ),
    "static_noise": EventPhrases(
        clauses=(
            Clause("static", "hisses", "hissing"),
            Clause("a radio", "hisses", "hissing", "with static"),
            Clause("white noise", "hisses", "hissing"),
            Clause("static", "crackles", "crackling", "on a radio"),
            Clause("an untuned radio", "plays static", "playing static"),
            Clause("radio static", "hisses", "hissing"),
        ),
        nouns=(
            Noun("static", article=""),
            Noun("hiss of static", article="the"),
            Noun("white noise", article=""),
            Noun("radio static", article=""),
        ),
        continuous=True,
        ambient=True,
        adverbs=("steadily", "continuously"),
    ),
    "electric_hum": EventPhrases(
        clauses=(
            Clause("an electric current", "hums", "humming"),
            Clause("electricity", "hums", "humming"),
            Clause("a transformer", "hums", "humming"),
            Clause("an electrical device", "hums", "humming"),
            Clause("power lines", "hum", "humming", plural=True),
            Clause("an electric hum", "drones on", "droning on"),
        ),
        nouns=(
            Noun("electric hum"),
            Noun("hum of electricity", article="the"),
            Noun("low electrical hum"),
        ),
        continuous=True,
        adverbs=("steadily", "continuously", "constantly"),
    ),
    "morse_code": EventPhrases(
        clauses=(
            Clause("morse code", "beeps", "beeping"),
            Clause("morse code", "is sent", "being sent"),
            Clause("someone", "taps out morse code", "tapping out morse code"),
            Clause("a radio", "beeps", "beeping", "in morse code"),
            Clause("a telegraph", "sends morse code", "sending morse code"),
            Clause("a morse code message", "is transmitted", "being transmitted"),
        ),
        nouns=(
            Noun("morse code", article=""),
            Noun("beeping of morse code", article="the"),
            Noun("morse code signal"),
        ),
        continuous=True,
        adverbs=("rapidly", "continuously"),
    ),
    "plucked_string": EventPhrases(
        clauses=(
            Clause("a string", "is plucked", "being plucked"),
            Clause("a guitar string", "is plucked", "being plucked"),
            Clause("someone", "plucks a string", "plucking a string"),
            Clause("a person", "plucks a guitar", "plucking a guitar"),
            Clause("a guitar string", "twangs", "twanging"),
            Clause("a stringed instrument", "is plucked", "being plucked"),
        ),
        nouns=(
            Noun("plucked string", "plucked strings"),
            Noun("plucking of a string", article="the"),
            Noun("pluck of a guitar string", "plucks of a guitar string"),
        ),
        adverbs=("gently",),
    ),
    "organ_chord": EventPhrases(
        clauses=(
            Clause("an organ", "plays a chord", "playing a chord"),
            Clause("an organ", "plays", "playing"),
            Clause("a chord", "is played", "being played", "on an organ"),
            Clause("an organ chord", "rings out", "ringing out"),
            Clause("a pipe organ", "plays a chord", "playing a chord"),
            Clause("someone", "plays an organ", "playing an organ"),
        ),
        nouns=(
            Noun("organ chord", "organ chords"),
            Noun("chord on an organ", "chords on an organ"),
            Noun("sound of an organ", article="the"),
        ),
        countable=True,
    ),
    "sonar_ping": EventPhrases(
        clauses=(
            Clause("a sonar", "pings", "pinging"),
            Clause("a submarine sonar", "pings", "pinging"),
            Clause("a sonar ping", "rings out", "ringing out"),
            Clause("a sonar", "pings", "pinging", "under water"),
            Clause("a submarine", "pings", "pinging"),
            Clause("a sonar ping", "echoes", "echoing"),
        ),
        nouns=(
            Noun("sonar ping", "sonar pings"),
            Noun("pinging of a sonar", article="the"),
            Noun("ping from a submarine", "pings from a submarine"),
        ),
        countable=True,
    ),
    "laser_zap": EventPhrases(
        clauses=(
            Clause("a laser", "zaps", "zapping"),
            Clause("a laser gun", "fires", "firing"),
            Clause("a laser", "fires", "firing"),
            Clause("a ray gun", "zaps", "zapping"),
            Clause("a laser blast", "sounds", "sounding"),
            Clause("someone", "shoots a laser gun", "shooting a laser gun"),
            Clause("a laser", "is fired", "being fired", "in a video game"),
        ),
        nouns=(
            Noun("laser zap", "laser zaps"),
            Noun("laser blast", "laser blasts"),
            Noun("zapping of a laser", article="the"),
        ),
    ),
}
