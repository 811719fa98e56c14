"""What the demo model learns from, and what it never sees: the only place where the two are told apart.

A path is `package:path inside it`; a path inside a compiled Qt resource follows its file after `!`.
"""
from dataclasses import dataclass, field

STAMPS = "tuxpaint-stamps-default:usr/share/tuxpaint/stamps"
GLEST = "megaglest-data:usr/share/games/megaglest"
WIDELANDS = "widelands-data:usr/share/games/widelands/data"
FARM = (
    "gcompris-qt-data:usr/share/gcompris-qt/rcc/explore_farm_animals.rcc"
    "!gcompris/src/activities/explore_farm_animals/resource/animals"
)
MEMORY = (
    "gcompris-qt-data:usr/share/gcompris-qt/rcc/memory-sound.rcc!gcompris/src/activities/memory-sound/resource"
)
EMOJI_FONT = "fonts-noto-color-emoji:usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
COMMON = f"{GLEST}/techs/megapack/commondata/sounds"
FACTIONS = f"{GLEST}/techs/megapack/factions"


@dataclass(frozen=True)
class Kind:
    """One animal: its name, its pictures, its recordings."""

    name: str
    emoji: str
    stamps: tuple  # photographs and drawings
    recordings: tuple  # for training
    held_out: tuple  # other takes, of other packages where there are any: for evaluation alone
    spoken: str | None  # a person who says the English name: for evaluation alone


def _stamps(*names):
    return tuple(f"{STAMPS}/{name}" for name in names)


def _numbered(folder, name, numbers):
    return tuple(f"{folder}/{name}{number}.wav" for number in numbers)


def _kind(name, emoji, stamps, recordings, held_out, spoken):
    pictures = _stamps(*(f"{stamp}.png" for stamp in stamps))
    return Kind(name, emoji, pictures, recordings, held_out, f"{STAMPS}/{spoken}_desc.ogg" if spoken else None)


KINDS = (
    _kind(
        "dog", "🐶🐕", ("animals/mammals/dogs/dog",),
        _stamps("animals/mammals/dogs/dog.ogg"),
        (f"{FARM}/dog.ogg", f"{MEMORY}/LRBark_1_LA_cut.ogg", f"{MEMORY}/LRBark_3_LA_cut.ogg"),
        "animals/mammals/dogs/dog",
    ),
    _kind(
        "cat", "🐱🐈", (),
        _stamps("seasonal/halloween/blackcat.ogg"),
        (f"{FARM}/cat.ogg",),
        None,
    ),
    _kind(
        "cow", "🐮🐄", ("animals/mammals/bovines/cow",),
        _stamps(*(f"animals/mammals/bovines/{name}.ogg" for name in ("cow", "cow_white", "bull")))
        + _numbered(COMMON, "cow_ack", (1, 2, 3)) + _numbered(COMMON, "cow_select", (1, 2, 3))
        + _numbered(COMMON, "cow_die", (1, 2, 3)),
        (f"{FARM}/cow.ogg", f"{WIDELANDS}/sound/farm/ox_00.ogg", f"{WIDELANDS}/sound/farm/ox_01.ogg"),
        "animals/mammals/bovines/cow",
    ),
    _kind(
        "horse", "🐴🐎", ("animals/mammals/equines/horse",),
        _stamps("animals/mammals/equines/horse.ogg"),
        (f"{FARM}/horse.ogg", f"{WIDELANDS}/sound/farm/horse_00.ogg", f"{WIDELANDS}/sound/farm/horse_01.ogg"),
        "animals/mammals/equines/horse",
    ),
    _kind(
        "pig", "🐷🐖", ("animals/mammals/pig", "animals/mammals/pig_golden"),
        _stamps(*(f"animals/mammals/{name}.ogg" for name in ("pig", "pig_golden", "pig_golden2")))
        + _numbered(COMMON, "pig_ack", (1, 2, 3, 4)) + _numbered(COMMON, "pig_select", (1, 2, 3, 4))
        + _numbered(COMMON, "pig_die", (1, 2, 3, 4))
        + _numbered(f"{FACTIONS}/norsemen/units/wild_sow/sounds", "pig_attack", (1, 2, 3)),
        (f"{FARM}/pig.ogg", f"{WIDELANDS}/sound/animals/boar.ogg"),
        "animals/mammals/pig",
    ),
    _kind(
        "sheep", "🐑", ("animals/mammals/bovines/sheep", "animals/mammals/bovines/sheep_lamb"),
        _stamps(*(f"animals/mammals/bovines/{name}.ogg" for name in ("sheep", "sheep_lamb", "ram")))
        + _numbered(f"{FACTIONS}/persian/units/sheep/sounds", "sheep", range(1, 11))
        + _numbered(f"{FACTIONS}/persian/units/sheep/sounds", "sheep_die", (1, 2, 3)),
        (f"{FARM}/sheep.ogg",) + tuple(f"{WIDELANDS}/sound/farm/sheep_0{n}.ogg" for n in range(3)),
        None,
    ),
    _kind(
        "duck", "🦆", ("animals/birds/duck",),
        _stamps("animals/birds/duck.ogg", "animals/birds/drake.ogg"),
        (f"{FARM}/duck.ogg",) + tuple(f"{WIDELANDS}/world/critters/duck/duck_0{n}.ogg" for n in range(3)),
        "animals/birds/duck",
    ),
    _kind(
        "chicken", "🐔🐓", ("animals/birds/hen", "animals/birds/rooster"),
        _stamps("animals/birds/hen.ogg", "animals/birds/rooster.ogg")
        + _numbered(f"{FACTIONS}/egypt/units/chicken/sounds", "chicken_ack", (1, 2, 3, 4))
        + _numbered(f"{FACTIONS}/egypt/units/chicken/sounds", "chicken_select", (1, 2, 3, 4))
        + _numbered(f"{FACTIONS}/egypt/units/chicken/sounds", "chicken_standing", (1, 2)),
        (f"{FARM}/chickens.ogg", f"{GLEST}/tilesets/birch_forest/sounds/chicken.wav"),
        None,
    ),
    _kind(
        "owl", "🦉", ("animals/birds/owl",),
        _stamps("animals/birds/owl.ogg"),
        (f"{FARM}/owl.ogg", f"{GLEST}/tilesets/autumn/sounds/owl.ogg"),
        "animals/birds/owl",
    ),
    _kind(
        "frog", "🐸", ("animals/amphibians/frog",),
        _stamps("animals/amphibians/frog.ogg"),
        (f"{WIDELANDS}/sound/animals/frog.ogg", f"{MEMORY}/LRFrogsInPondDuringStormLACut.ogg"),
        "animals/amphibians/frog",
    ),
    _kind(
        "bee", "🐝", (),
        _stamps("animals/insects/bee.ogg") + _numbered(f"{FACTIONS}/indian/units/beehive/sounds", "bee", (1, 2)),
        _numbered(f"{FACTIONS}/indian/units/beehive/sounds", "bee", (3, 4)),
        "animals/insects/bee",
    ),
    _kind(
        "lion", "🦁", ("animals/mammals/cats/lion-2",),
        _stamps("animals/mammals/cats/lion.ogg"),
        (),
        "animals/mammals/cats/lion",
    ),
    _kind(
        "elephant", "🐘", ("animals/mammals/elephant",),
        _stamps("animals/mammals/elephant.ogg"),
        (),
        "animals/mammals/elephant",
    ),
    _kind(
        "wolf", "🐺", (),
        (f"{GLEST}/tilesets/birch_forest/sounds/wolf.wav", f"{GLEST}/tilesets/desert2/sounds/wolf.wav"),
        # wolf_01 has a howl of birch_forest/wolf in it
        tuple(f"{WIDELANDS}/sound/animals/wolf_0{n}.ogg" for n in (0, 2)),
        None,
    ),
)
NAMES = tuple(kind.name for kind in KINDS)

#: eSpeak NG: languages and voice variants. Held-out variants, and held-out languages, are never heard in training.
VOICE_LANGUAGES = ("en", "en-us", "en-gb-x-rp", "en-gb-scotland")
VOICE_VARIANTS = (
    "m1", "m2", "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f4", "f5", "klatt", "klatt2", "klatt4", "Alex", "Andy",
    "Annie", "Gene", "Jacky", "Lee", "Mario", "Michael", "Mike", "Reed", "adam", "anika", "aunty", "belinda",
    "boris", "david", "ed", "grandma", "grandpa", "ian", "iven", "john", "linda", "marcelo", "pedro", "quincy",
    "robert", "steph", "travis", "zac", "Storm", "Tweaky", "caleb", "edward", "miguel", "paul", "victor",
)  # fmt: skip
HELD_OUT_VOICES = (
    ("en", "f3"), ("en", "m5"), ("en-us", "Alicia"), ("en-us", "benjamin"), ("en-gb-x-gbclan", "max"),
    ("en-029", "shelby"), ("en-us-nyc", "rob"), ("en-gb-x-gbcwmd", "Andrea"),
)  # fmt: skip
PHRASES = ("{name}", "{name}!", "a {name}", "the {name}", "{name}, {name}")
EVALUATED_PHRASE = "{name}"

PACKAGES = (
    "tuxpaint-stamps-default", "megaglest-data", "widelands-data", "gcompris-qt-data", "fonts-noto-color-emoji"
)


def paths(package=None):
    """Every path of the table, of one package or of all."""
    found = [EMOJI_FONT]
    for kind in KINDS:
        found += kind.stamps + kind.recordings + kind.held_out + ((kind.spoken,) if kind.spoken else ())
    return [path for path in found if package is None or path.startswith(f"{package}:")]
