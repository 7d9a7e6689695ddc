"""The words of captions with their parts of speech, by word lists and endings alone.

A tag is one character, so that a grammatical rule is a regular expression over a caption's tags:

    d article   q other determiner, number   o pronoun   j adjective   n noun (N plural)
    E noun that names a sound or an event    V finite verb   G participle used as a verb
    x finite auxiliary (is, has)   y other auxiliary (be, can)   r adverb   T to   l like
    p preposition that needs an object (of, with)   P one that does not (by, off, past)
    c and, or, but   s while, as, when   b before, after   h then   f followed   t that, which
    , punctuation inside the caption

A word that may be a verb or a noun gets its tag from the one before it: "a dog barks" against
"loud barks". Where neither is certain, the tag is the one with which fewer captions are faulty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Verbs whose nouns name a sound or an event: any form of them, as verb or noun, is something heard.
_SOUND_VERBS = """
applaud babble backfire bang bark bash bawl beat beep belch bellow blare blast bleat bleep blip boom
bray breathe bubble burble burp burst buzz cackle call caw chant chat chatter cheep cheer chime
chirp chirrup chuckle chug clack clang clank clap clash clatter click clink clip clomp clop cluck
clunk coo cough crack crackle crash creak crinkle croak crow crumble crumple crunch cry ding dribble
drip drone drum echo erupt exclaim explode fart fizz fizzle flap flush flutter gargle gasp giggle
groan growl grumble grunt gulp gurgle hiccup hiss holler honk hoot howl huff hum jangle jingle
knock laugh meow mew moan moo mumble murmur mutter narrate neigh oink pant patter peal peep ping
pitter plink plop pop pound pulse purr quack quaver ramble rap rasp rattle resonate rev reverberate
ribbit ring roar rumble rustle scrape scratch scream screech scuff scuffle shatter shout shriek
shuffle sigh sing sizzle slam slap slosh slurp smack snap snarl sneeze snicker sniff sniffle snip
snore snort sob sound speak splash splat splatter splutter sputter squawk squeak squeal squelch
squish stomp strum stutter swish swoosh talk tap thrum thud thump thunder tick ticktock tinkle tock
toll toot trickle trill tumble tweet twang twitter vibrate vocalize wail warble weep wheeze whimper
whine whinny whir whirr whisper whistle whiz whoop whoosh woof yap yell yelp yip yodel yowl zap zing
"""
# What the things and people in captions do besides; as nouns these name no sound (rocks, pace).
_ACTION_VERBS = """
accelerate accompany achieve act activate add adjust advance agitate alternate announce answer
appear approach argue arrive ascend ask attach attempt back become begin bend bite blend blow board
boil bob bounce brake break brew bring broadcast brush build bump burn bustle buff calm care carry
carve cascade catch cause change charge chase check chew chip choke chomp chop churn circle
circulate clean clear climb cling close coast collapse collect collide come communicate compete
complete contact contain continue converse cook count cover crank crawl create cross crush cut
cycle deal decelerate decrease deliver depart descend dial die dig diminish dip direct disappear
discuss disperse dissipate distort disturb dive do downshift drag drain draw drift drill drink drive
drizzle drop drown dry dump eat eject emanate emerge emit empty end engage enjoy enter entertain
escape escalate evacuate exhale exist exit express face fade fail fall fan feed feel fiddle fight
file fill find finish fire fit fix flick flip float flow fluctuate fly fold follow forage form frolic
fry gain gallop gather get give glide gnaw go grab grate graze greet grind grow gush gust hack hail
hammer handle hang happen have head hear heat heave hit hold hop hover hurtle hurry idle ignite
imitate impact include increase indicate inhale interact intensify interrupt introduce iron join jog
jolt jostle jump keep kick kiss knead know land lap last launch lay lead leak leap leave let lick
lie lift light linger listen load lock look loop loosen lower maintain make manipulate march mash
merge mill mimic mix modulate mop mouth move mow need nibble occur ooze open operate oscillate
overlap overpower pace pack paddle paint parade park pass pause pave peck pedal peel penetrate
perform permeate persist pet pick pierce pile pitch place play plow pluck plunge poke polish pour
power practice pray preach precede prepare present press pressurize print proceed process produce
progress project propel pull pulsate pump punch punctuate push put putter quiet quieten race rain
raise rake range reach read rebound recede receive recite reciprocate record recur reel release
remain remove repeat reply respond rest resume retract return reverse revolve rewind ride rinse rip
ripple rise roam rock roll rotate row rub ruffle run rush sand saw say scamper scan scatter scrabble
screw scribble scrub scrunch scurry seal search see sell send separate serve set sew shake sharpen
shave shift shoot shovel show shower shred shut sift signal simmer sip sit skate skid skim skip
sleep slice slide slip slither slow smash smoke smooth snag socialize sort spatter speed spend spill
spin spit spray spread sprinkle spurt squeeze squirt stack stamp stand staple start startle stay
steam step stick stir stop strain stream stretch strike stroke stroll struggle strut subside suck
surge surround swallow swarm sway swear sweep swell swerve swim swing swirl switch take taxi teach
tear tease tell test thrash throb throttle throw tie tighten tinker toggle touch tow trace transfer
transition transmit trample travel tread trigger trim trot trudge try tune turn twist type unfold
unlock unwind unwrap unzip urinate use utter vacuum vary wade wait wake walk wander want warm warn
wash watch wave wheel whip whirl whisk widen wipe work wrap write zip zoom
"""
# Finite in the third person: these forms are hardly ever plural nouns.
_HARDLY_NOUNS = """
accelerate accompany announce approach argue arrive ascend ask become begin bring carry collide come
continue converse decelerate deliver depart descend diminish do eat eject emit enter exhale exist
fade fill flow follow get give go grow happen have hear hover imitate include increase inhale
intensify keep listen make meow move narrate neigh occur operate oscillate pass perform play pour
proceed produce pull put reach remain reverberate run rush say scurry send shut sing sit slow speak
start stay stop subside take talk tell turn type use vary vibrate vocalize wait walk wipe write
"""
_IRREGULAR_PAST = """
ate became began blew broke came chose did drank drew drove fell flew froze gave grew knew rang rode
rose sang sank shook spoke swam sped threw took tore went woke wore wrote
"""
_IRREGULAR_PARTICIPLES = """
beaten begun bent bitten blown broken brought built burst caught chosen cut drawn driven drunk eaten
fallen fed felt flown found frozen given gone grown heard held hidden hit hung kept known laid led
left lit lost made met mown paid put read ridden risen rung run said sat sawn seen sent set shaken
shot shut slept slid spent split spoken spread spun stood struck sung swept swung taken taught
thought thrown told torn worn wound woven written
"""
# Nouns of what is heard that are no forms of the verbs above.
_SOUND_NOUNS = """
acceleration alarm ambiance ambience announcement applause audio bass beatbox bell birdcall birdsong
breath breeze cacophony chainsaw chorus clamor code commotion conversation crescendo deceleration
dialog dialogue din downpour drumbeat drumroll effect explosion feedback firecracker firework
fireworks footfall footstep frequency friction gibberish gunfire gunshot heartbeat hoofbeat horn
hubbub instrument instrumental interference jackhammer jazz language laughter melody monologue
motion movement music narration noise note orchestra outburst percussion racket radio rain raindrop
rainfall rainstorm reverb reverberation rhythm riff screeching sermon silence siren snowstorm sonar
song soundtrack speech squall static storm surf symphony synthesizer techno thunder thunderclap
thunderstorm tone traffic tune uproar utterance vibration vocal vocalization voice volley waterfall
whirring wind windstorm word
"""
_ADJECTIVES = """
adult bad big brief clear close constant deep dense different distant dry dull electric electronic
faint fast full gentle good great harsh hard heavy high hollow huge large light little long loud low
medium mid moderate muted near new old open other quick quiet random rapid rough same sharp short
shrill similar single slight slow small smooth soft steady strange strong sudden thick thin tiny wet
wide windy wooden young
"""
_PLURALS = "people men women children cattle sheep police kids teeth feet geese mice sheep pigeons"
_FUNCTION_WORDS = {
    "d": "a an the",
    "q": "another any all both couple each eight every few five four her his its lot lots many more "
    "most much multiple my no numerous one other others our several six some ten that their these "
    "this those three two various your",
    "o": "anyone anything everyone everything he her him himself i it itself me nobody none nothing "
    "she somebody someone something them themselves they us we who you",
    "x": "are could did do does had has have is should was were will would",
    "y": "be been being can may might must",
    "p": "against alongside amid amidst among amongst at between despite during except for from in "
    "including into of onto to toward towards upon via with without",
    "P": "about above across ahead alike along apart around aside atop away back backward backwards "
    "behind below beneath beside besides beyond by down forth forward indoors inside near off on "
    "opposite out outdoors outside over past through throughout together under underneath up within",
    "c": "and but nor or plus yet",
    "s": "although as because if once since so though till unless until when whenever whereas while "
    "whilst",
    "b": "after before than",
    "h": "then",
    "f": "followed following",
    "t": "how that what where which who whom whose why",
    "T": "to",
    "l": "like",
    "r": "afterward afterwards again almost also always aloud alone close closer constantly even far farther fast faster "
    "finally first further hard here just later longer louder lower maybe nearby never not now often "
    "only perhaps quicker quieter quite rather shortly simultaneously slower softer "
    "sometimes somewhat soon still there too twice very well",
}
# Words in -ing and -ed that are no forms of verbs.
_NOT_PARTICIPLES = frozenset(
    "anything bed building buildings ceiling ceilings during evening everything hundred indeed king "
    "morning need nothing red seed seeing shed sibling siblings sled something spring string strings "
    "thing things weed wing wings".split()
)
# "a sewing machine" sews nothing: before these nouns, a word in -ing tells their kind.
_KINDS_OF_THINGS = frozenset(
    "board boards chair compound device equipment fan glass gum gun lot machine machines pan pool "
    "press room sail saw signal signals space tank tool wheel".split()
)
_ARTICLES = frozenset(("a", "an", "another"))
_SINGULAR = frozenset("another each every it its one other others this".split())
_PLURAL = frozenset(
    "all both couple different few five four lots many more most multiple numerous other several six "
    "some ten these those three two various".split()
)
# After these a noun phrase is no object, so that a verb behind it has it as its subject.
WITHOUT_OBJECT = frozenset(
    "arrive bark bleat breathe burp buzz caw chat chatter chirp chuckle cluck converse coo cough croak "
    "crow cry fade fall flow gallop giggle growl gurgle happen hiss howl hum idle laugh meow moo murmur "
    "neigh occur oink pant quack roar rumble sizzle snore sneeze sob speak squawk talk trickle wail "
    "whimper whine whir".split()
)
_NO_ADVERBS = frozenset("assembly belly bubbly early family fly friendly jelly ugly".split())
_MARKS = re.compile(r"[^\W_]+|[,.;:!?]")
_APOSTROPHES = str.maketrans("", "", "'\u2019\u02bc")
_ADJECTIVE = re.compile(r"\w{3,}(?:al|ic|ous|ful|ive|ish|less|able|ible)$")
_NO_ADJECTIVES = frozenset(
    "animal arrival cable canal crystal fabric festival hospital individual interval journal "
    "manual mechanic medal metal music pedal plastic recital signal table terminal traffic vegetable "
    "vehicle".split()
)


def _third_person(verb: str) -> str:
    if verb == "have":
        return "has"
    if verb.endswith(("s", "x", "z", "ch", "sh")) or verb in ("go", "do", "echo"):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if re.search(r"[^aeiou]y$", verb) else f"{verb}s"


def _in_ing_and_ed(verb: str) -> list[str]:
    """All ways in which the two forms may be spelled, such as "tapping" and "taping"."""
    stems = [verb, verb + verb[-1]] + ([verb[:-1]] if verb.endswith("e") else [])
    past = [f"{verb[:-1]}ied"] if verb.endswith("y") else []
    return [stem + end for stem in stems for end in ("ing", "ed")] + past


_SOUNDS = frozenset(_SOUND_VERBS.split())
_VERBS = _SOUNDS | frozenset(_ACTION_VERBS.split())
_THIRD_PERSONS = {_third_person(verb): verb for verb in _VERBS}
_FINITE = frozenset(_third_person(verb) for verb in _HARDLY_NOUNS.split()) | frozenset(
    _IRREGULAR_PAST.split()
)
_PARTICIPLES = frozenset(_IRREGULAR_PARTICIPLES.split())
_NAMES = frozenset(_SOUND_NOUNS.split())
_TAGS = {word: tag for tag, words in _FUNCTION_WORDS.items() for word in words.split()}
_TAGS |= {word: "j" for word in _ADJECTIVES.split()} | {word: "N" for word in _PLURALS.split()}
_LEMMAS = {form: verb for verb in _VERBS for form in _in_ing_and_ed(verb)}
_LEMMAS |= _THIRD_PERSONS | {"sang": "sing", "spoke": "speak", "blew": "blow", "rang": "ring"}


@dataclass(frozen=True)
class TaggedCaption:
    """The words and marks of a caption, and one character of `tags` for each of them."""

    words: list[str]
    tags: str


def tag_caption(caption: str) -> TaggedCaption:
    """The parts of speech of a caption; see the table at the top of this file."""
    words = _MARKS.findall(caption.lower().translate(_APOSTROPHES))
    while words and not words[-1].isalnum():
        words.pop()
    # w, k: a verb's form in -s or its base form, either may be a noun. g, e: in -ing, in -ed.
    first = [_tag_alone(word) for word in words]
    tags = ""
    for at, tag in enumerate(first):
        following = first[at + 1] if at + 1 < len(first) else ""
        tags += _tag_in_context(words, at, tag, tags, following)
    return TaggedCaption(words, tags)


def lemma(word: str) -> str:
    """A word without its inflection: barks, barking -> bark; dogs -> dog."""
    if word in _LEMMAS:
        return _LEMMAS[word]
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word


def is_verb_form(word: str) -> bool:
    """Whether a word is a form of a known verb, though it may be used as a noun."""
    return lemma(word) in _VERBS


def _tag_alone(word: str) -> str:
    if not word.isalnum():
        return ","
    if word in _TAGS:
        return _TAGS[word]
    if word in _FINITE:
        return "v"
    if word in _NAMES or word.removesuffix("s") in _NAMES:
        return "E"
    if word in _THIRD_PERSONS:
        return "w"
    if word in _VERBS:
        return "k"
    if word in _PARTICIPLES:
        return "e"
    if word in _NOT_PARTICIPLES:
        return "N" if word.endswith("s") else "n"
    if len(word) > 4 and word.endswith(("ing", "ings")):
        return "g"
    if len(word) > 4 and word.endswith("ed"):
        return "e"
    if len(word) > 4 and word.endswith("ly") and word not in _NO_ADVERBS:
        return "r"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return "N"
    return "j" if _ADJECTIVE.match(word) and word not in _NO_ADJECTIVES else "n"


def _tag_in_context(words: list[str], at: int, tag: str, before: str, after: str) -> str:
    """The final tag of a word, from its first one and the final tags of the words before it."""
    word, last = words[at], before[-1:]
    previous = words[at - 1] if at else ""
    following = words[at + 1] if at + 1 < len(words) else ""
    # An adverb between subject and verb: "a dog loudly barks".
    subject = before.rstrip("r")[-1:] if last == "r" else last
    if tag == "s":
        return _tag_conjunction(word, last, previous, following)
    if word == "in" and (not after or after in "c,sbhf"):
        return "P"  # "rolls in and out"
    if tag == "v":
        plural = last == "q" and previous not in _SINGULAR
        return _noun(word) if plural or last in ("d", "j", "p") else "V"
    if tag in ("w", "k"):
        return _tag_verb_or_noun(words, at, tag, before, subject)
    if tag == "g":
        return _tag_ing(word, last, following, after)
    if tag == "e":
        return "j" if last in ("d", "j", "p", "q") else "G"
    # Verbs that no list has: "a crowd rejoices", "someone dials and then connects".
    if tag == "N" and (subject == "o" or (last == "n" and _opener(words, before)[0] in _ARTICLES)):
        return "V"
    if tag == "N" and last == "h" and _has_verb(before) and after not in tuple("wkvxge"):
        return "V"
    return tag


def _tag_verb_or_noun(words: list[str], at: int, tag: str, before: str, subject: str) -> str:
    """barks, bark: a finite verb or a noun."""
    word, last, previous = words[at], before[-1:], words[at - 1] if at else ""
    goes_on = _has_verb(before) and (last in ("c", "h") or (last == "," and word not in _SOUNDS))
    if tag == "w":
        is_verb = previous in ("another", "one") or goes_on
        if subject in ("n", "o", "E") and not is_verb:
            opener, opened_by = _opener(words, before)
            is_object = opened_by in ("V", "G") and lemma(opener) not in WITHOUT_OBJECT
            is_verb = not (is_object or opened_by in ("p", "P") or opener in _PLURAL)
        return "V" if is_verb else _noun(word)
    if subject in ("T", "y", "x"):
        return "G"
    many = previous in ("they", "we", "i", "you", "others", "all", "both")
    many = many or (last == "E" and previous.endswith("s"))
    many = many or (last == "n" and "c" in re.split("[sbhf,VGx]", before)[-1])  # a man and a woman
    if subject == "N" or many or goes_on:
        return "V"
    return _noun(word) if last in ("d", "j", "p", "q") or word in _SOUNDS else "E"


def _tag_conjunction(word: str, last: str, previous: str, following: str) -> str:
    """`while`, `as` and their like, where they do not begin a clause."""
    if word == "while" and last == "d":
        return "n"
    if word == "as" and (following == "well" or previous == "well"):
        return "p" if previous == "well" else "r"
    if word == "as" and previous in ("such", "same", "if", "just", "so"):
        return "p"
    if word in ("if", "though") and last == "s":
        return "r"
    if word in ("once", "so"):
        return "s" if following in _FUNCTION_WORDS["o"].split() else "r"
    if word == "because" and following == "of":
        return "P"
    return "s"


def _tag_ing(word: str, last: str, following: str, after: str) -> str:
    if following in _KINDS_OF_THINGS and last != "x":
        return "n"
    if last in ("d", "q", "j"):
        return "E"
    return "E" if last == "p" or word.endswith("ings") else "G"


def _noun(word: str) -> str:
    """The tag of a verb's form that is used as a noun."""
    if _LEMMAS.get(word, word) in _SOUNDS:
        return "E"
    return "N" if word.endswith("s") else "n"


def _has_verb(tags: str) -> bool:
    """Whether there is a verb before, so that another one may go on with its subject."""
    return any(tag in tags for tag in "VGx")


def _opener(words: list[str], before: str) -> tuple[str, str]:
    """The word in front of the nouns and adjectives that end here, with its tag."""
    at = len(before.rstrip("rnjE")) - 1
    return (words[at], before[at]) if at >= 0 else ("", "")
