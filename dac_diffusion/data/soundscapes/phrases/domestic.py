"""Phrasings of sounds around the house."""

from __future__ import annotations

from dac_diffusion.data.soundscapes.phrases.forms import Clause, EventPhrases, Noun

DOMESTIC: dict[str, EventPhrases] = {
    "door_wood_creaks": EventPhrases(
        clauses=(
            Clause("a door", "creaks", "creaking"),
            Clause("a wooden door", "creaks", "creaking"),
            Clause("an old door", "creaks open", "creaking open"),
            Clause("a door", "squeaks", "squeaking"),
            Clause("a door", "creaks", "creaking", "on its hinges"),
            Clause("a squeaky door", "opens", "opening"),
        ),
        nouns=(
            Noun("door creak", "door creaks"),
            Noun("creaking of a door", article="the"),
            Noun("creak from a wooden door", "creaks from a wooden door"),
        ),
        adverbs=("slowly",),
    ),
    "door_wood_knock": EventPhrases(
        clauses=(
            Clause("someone", "knocks", "knocking", "on a door"),
            Clause("a person", "knocks", "knocking", "on a wooden door"),
            Clause("someone", "knocks", "knocking", "at the door"),
            Clause("a wooden door", "is knocked on", "being knocked on"),
            Clause("a visitor", "knocks", "knocking", "on a door"),
            Clause("a hand", "knocks", "knocking", "on wood"),
        ),
        nouns=(
            Noun("knock on a door", "knocks on a door"),
            Noun("knock at the door", "knocks at the door"),
            Noun("knocking on a wooden door", article=""),
        ),
        adverbs=("firmly", "quickly"),
    ),
    "glass_breaking": EventPhrases(
        clauses=(
            Clause("glass", "breaks", "breaking"),
            Clause("glass", "shatters", "shattering"),
            Clause("a glass", "shatters", "shattering", "on the floor"),
            Clause("a glass object", "breaks", "breaking"),
            Clause("a pane of glass", "shatters", "shattering"),
            Clause("someone", "breaks some glass", "breaking some glass"),
        ),
        nouns=(
            Noun("breaking glass", article=""),
            Noun("shattering of glass", article="the"),
            Noun("crash of breaking glass", "crashes of breaking glass"),
        ),
        adverbs=("suddenly", "violently"),
    ),
    "clock_tick": EventPhrases(
        clauses=(
            Clause("a clock", "ticks", "ticking"),
            Clause("a wall clock", "ticks", "ticking"),
            Clause("a clock", "ticks and tocks", "ticking and tocking"),
            Clause("an old clock", "ticks", "ticking"),
            Clause("a clock", "ticks", "ticking", "in a room"),
            Clause("a watch", "ticks", "ticking"),
        ),
        nouns=(
            Noun("ticking of a clock", article="the"),
            Noun("ticking clock"),
            Noun("clock ticks", article=""),
        ),
        continuous=True,
        adverbs=("steadily", "rhythmically", "continuously"),
    ),
    "clock_alarm": EventPhrases(
        clauses=(
            Clause("an alarm clock", "goes off", "going off"),
            Clause("an alarm clock", "rings", "ringing"),
            Clause("an alarm clock", "beeps", "beeping"),
            Clause("an alarm clock", "sounds", "sounding", "in a bedroom"),
            Clause("a bedside alarm clock", "goes off", "going off"),
            Clause("the alarm of a clock", "sounds", "sounding"),
        ),
        nouns=(
            Noun("ringing alarm clock"),
            Noun("beeping of an alarm clock", article="the"),
            Noun("sound of an alarm clock", article="the"),
        ),
        continuous=True,
        adverbs=("continuously", "persistently"),
    ),
    "toilet_flush": EventPhrases(
        clauses=(
            Clause("a toilet", "flushes", "flushing"),
            Clause("a toilet", "is flushed", "being flushed"),
            Clause("someone", "flushes a toilet", "flushing a toilet"),
            Clause("a toilet", "flushes", "flushing", "in a bathroom"),
            Clause("a person", "flushes the toilet", "flushing the toilet"),
            Clause("a toilet", "flushes and drains", "flushing and draining"),
        ),
        nouns=(
            Noun("toilet flush", "toilet flushes"),
            Noun("flushing of a toilet", article="the"),
            Noun("flush from a toilet", "flushes from a toilet"),
        ),
    ),
    "washing_machine": EventPhrases(
        clauses=(
            Clause("a washing machine", "runs", "running"),
            Clause("a washing machine", "spins", "spinning"),
            Clause("a washing machine", "churns", "churning"),
            Clause("a washing machine", "washes clothes", "washing clothes"),
            Clause("laundry", "tumbles", "tumbling", "in a washing machine"),
            Clause("a washing machine", "hums and rattles", "humming and rattling"),
        ),
        nouns=(
            Noun("washing machine"),
            Noun("hum of a washing machine", article="the"),
            Noun("running washing machine"),
        ),
        continuous=True,
        adverbs=("steadily", "continuously"),
    ),
    "vacuum_cleaner": EventPhrases(
        clauses=(
            Clause("a vacuum cleaner", "runs", "running"),
            Clause("a vacuum cleaner", "hums", "humming"),
            Clause("a vacuum", "whirs", "whirring"),
            Clause("someone", "vacuums a carpet", "vacuuming a carpet"),
            Clause("a person", "cleans", "cleaning", "with a vacuum cleaner"),
            Clause("a vacuum cleaner", "roars", "roaring"),
        ),
        nouns=(
            Noun("vacuum cleaner"),
            Noun("whir of a vacuum cleaner", article="the"),
            Noun("running vacuum"),
        ),
        continuous=True,
        adverbs=("steadily", "continuously"),
    ),
    "keyboard_typing": EventPhrases(
        clauses=(
            Clause("someone", "types", "typing", "on a keyboard"),
            Clause("a person", "types", "typing", "on a computer"),
            Clause("a keyboard", "clicks and clacks", "clicking and clacking"),
            Clause("fingers", "tap", "tapping", "on a keyboard", plural=True),
            Clause("someone", "types", "typing", "on a computer keyboard"),
            Clause("keyboard keys", "are pressed", "being pressed", plural=True),
        ),
        nouns=(
            Noun("typing on a keyboard", article=""),
            Noun("clicking of a keyboard", article="the"),
            Noun("clatter of keyboard keys", article="the"),
        ),
        continuous=True,
        adverbs=("quickly", "rapidly", "continuously"),
    ),
    "mouse_click": EventPhrases(
        clauses=(
            Clause("a computer mouse", "clicks", "clicking"),
            Clause("someone", "clicks a mouse", "clicking a mouse"),
            Clause("a mouse button", "clicks", "clicking"),
            Clause("a person", "clicks a computer mouse", "clicking a computer mouse"),
            Clause("a mouse", "is clicked", "being clicked"),
            Clause("someone", "clicks", "clicking", "with a mouse"),
        ),
        nouns=(
            Noun("mouse click", "mouse clicks"),
            Noun("clicking of a mouse", article="the"),
            Noun("click of a computer mouse", "clicks of a computer mouse"),
        ),
        adverbs=("quickly",),
    ),
    "can_opening": EventPhrases(
        clauses=(
            Clause("someone", "opens a can", "opening a can"),
            Clause("a can", "is opened", "being opened"),
            Clause("a person", "opens a soda can", "opening a soda can"),
            Clause("a can", "pops open", "popping open"),
            Clause("a can", "opens", "opening", "with a hiss"),
            Clause("someone", "cracks open a can", "cracking open a can"),
            Clause("a drink can", "is opened", "being opened"),
        ),
        nouns=(
            Noun("opening of a can", article="the"),
            Noun("hiss of an opening can", article="the"),
            Noun("pop from a can", "pops from a can"),
        ),
    ),
    "doorbell": EventPhrases(
        clauses=(
            Clause("a doorbell", "rings", "ringing"),
            Clause("a doorbell", "chimes", "chiming"),
            Clause("someone", "rings a doorbell", "ringing a doorbell"),
            Clause("a visitor", "rings the doorbell", "ringing the doorbell"),
            Clause("a doorbell", "dings", "dinging"),
            Clause("a doorbell", "sounds", "sounding", "in a house"),
        ),
        nouns=(
            Noun("doorbell ring", "doorbell rings"),
            Noun("doorbell chime", "doorbell chimes"),
            Noun("ringing of a doorbell", article="the"),
        ),
        countable=True,
    ),
    "telephone_ringing": EventPhrases(
        clauses=(
            Clause("a telephone", "rings", "ringing"),
            Clause("a phone", "rings", "ringing"),
            Clause("an old telephone", "rings", "ringing"),
            Clause("a phone", "rings", "ringing", "on a desk"),
            Clause("an unanswered phone", "rings", "ringing"),
            Clause("a landline phone", "rings", "ringing"),
        ),
        nouns=(
            Noun("phone ring", "phone rings"),
            Noun("telephone ring", "telephone rings"),
            Noun("ringing of a telephone", article="the"),
        ),
        adverbs=("insistently",),
    ),
    "music_box": EventPhrases(
        clauses=(
            Clause("a music box", "plays", "playing"),
            Clause("a music box", "plays a melody", "playing a melody"),
            Clause("a music box", "tinkles", "tinkling"),
            Clause("a tune", "plays", "playing", "on a music box"),
            Clause("a small music box", "plays a tune", "playing a tune"),
            Clause("a music box", "chimes", "chiming"),
        ),
        nouns=(
            Noun("music box melody"),
            Noun("tinkling of a music box", article="the"),
            Noun("music box"),
        ),
        continuous=True,
        adverbs=("gently", "sweetly"),
    ),
    "bouncing_ball": EventPhrases(
        clauses=(
            Clause("a ball", "bounces", "bouncing"),
            Clause("a rubber ball", "bounces", "bouncing"),
            Clause("a ball", "bounces", "bouncing", "on the floor"),
            Clause("someone", "bounces a ball", "bouncing a ball"),
            Clause("a ball", "is bounced", "being bounced", "on the ground"),
            Clause("a dropped ball", "bounces", "bouncing"),
        ),
        nouns=(
            Noun("ball bounce", "ball bounces"),
            Noun("bouncing of a ball", article="the"),
            Noun("bounce of a rubber ball", "bounces of a rubber ball"),
        ),
        adverbs=("quickly",),
    ),
}
