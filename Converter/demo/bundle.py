"""Copies what the product bundles: the int8 file, and four seconds of some of the held-out sounds as FLAC at 16 kHz.

bundle.py WORK WEIGHTS
"""
import os
import shutil
import sys

import soundfile

import split

#: (file, kind, group, number within the group), sounds that training never heard.
SOUNDS = (
    ("bee.flac", "bee", "other_recordings", 0),
    ("cow.flac", "cow", "other_recordings", 0),
    ("duck.flac", "duck", "other_recordings", 0),
    ("wolf.flac", "wolf", "other_recordings", 1),
    ("says-cat.flac", "cat", "other_voices", 4),
    ("says-dog.flac", "dog", "other_voices", 0),
    ("says-horse.flac", "horse", "people", 0),
    ("says-owl.flac", "owl", "other_voices", 0),
)


def source(kind_name, group, number):
    """Where a sound comes from, in words."""
    kind = split.KINDS[split.NAMES.index(kind_name)]
    if group == "other_voices":
        language, variant = split.HELD_OUT_VOICES[number]
        return f'eSpeak NG, voice {language}+{variant}, "{split.EVALUATED_PHRASE.format(name=kind_name)}"'
    return {"other_recordings": kind.held_out, "people": (kind.spoken,)}[group][number]


def bundle(work, weights):
    shutil.copyfile(os.path.join(work, "demo-int8.gguf"), os.path.join(weights, "demo.gguf"))
    folder = os.path.join(weights, "sounds")
    os.makedirs(folder, exist_ok=True)
    for name, kind, group, number in SOUNDS:
        samples, rate = soundfile.read(os.path.join(work, "evaluation", f"{group}-{kind}-{number}.wav"))
        soundfile.write(os.path.join(folder, name), samples[: 4 * rate], rate, subtype="PCM_16")
        print(name, source(kind, group, number))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: bundle.py WORK WEIGHTS: the work folder of make_demo.py, and the folder Weights")
    bundle(*sys.argv[1:])
