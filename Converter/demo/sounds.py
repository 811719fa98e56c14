"""The sounds of the animals: recordings and spoken names, mono at 16 kHz, for training and held out."""
import math
import os

import numpy as np
import soundfile
from scipy.signal import resample_poly

import packages
import speech
import split

RATE = 16000
SEEN_OF_EACH = 4  # recordings of training that are evaluated


def resampled(samples, rate):
    if rate == RATE:
        return samples.astype(np.float32)
    divisor = math.gcd(rate, RATE)
    return resample_poly(samples, RATE // divisor, rate // divisor).astype(np.float32)


def read(path):
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resampled(samples.mean(1), rate)


def trimmed(samples, below=40):
    """Without the quiet at both ends: what lies more than `below` decibels under the loudest 20 ms."""
    frames = len(samples) // 320
    if frames < 3:
        return samples
    level = np.sqrt((samples[: frames * 320].reshape(frames, 320) ** 2).mean(1))
    loud = np.flatnonzero(level > level.max() * 10 ** (-below / 20))
    return samples[loud[0] * 320 : (loud[-1] + 1) * 320]


def recordings(work):
    """For each kind, the clips that training hears."""
    return [[trimmed(read(packages.local(work, path))) for path in kind.recordings] for kind in split.KINDS]


def spoken(count, seed):
    """For each kind, `count` spoken names in voices that are not held out."""
    random, speaker = np.random.default_rng(seed), speech.Speaker()
    held_out = {variant for _, variant in split.HELD_OUT_VOICES}
    assert not held_out & set(split.VOICE_VARIANTS)
    clips = []
    for name in split.NAMES:
        said = []
        for _ in range(count):
            voice = f"{random.choice(split.VOICE_LANGUAGES)}+{random.choice(split.VOICE_VARIANTS)}"
            text = random.choice(split.PHRASES, p=(0.5, 0.1, 0.15, 0.1, 0.15)).format(name=name)
            samples = speaker.say(
                text, voice, random.integers(20, 85), random.integers(110, 230), random.integers(20, 90)
            )
            said.append(trimmed(resampled(samples, speaker.sample_rate)))
        clips.append(said)
    return clips


def write_evaluation(work, folder):
    """Writes every sound that is evaluated as 16-bit mono at 16 kHz; returns (group, kind, path) of each."""
    os.makedirs(folder, exist_ok=True)
    speaker, listed = speech.Speaker(), []

    def put(group, index, number, samples):
        path = os.path.join(folder, f"{group}-{split.NAMES[index]}-{number}.wav")
        peak = max(1e-6, float(np.abs(samples).max()))
        soundfile.write(path, samples * min(1, 0.99 / peak), RATE, subtype="PCM_16")
        listed.append((group, index, path))

    for index, kind in enumerate(split.KINDS):
        for number, path in enumerate(kind.recordings[:SEEN_OF_EACH]):
            put("seen_recordings", index, number, read(packages.local(work, path)))
        for number, path in enumerate(kind.held_out):
            put("other_recordings", index, number, read(packages.local(work, path))[: 10 * RATE])
        for number, (language, variant) in enumerate(split.HELD_OUT_VOICES):
            samples = speaker.say(split.EVALUATED_PHRASE.format(name=kind.name), f"{language}+{variant}")
            put("other_voices", index, number, resampled(samples, speaker.sample_rate))
        if kind.spoken:
            put("people", index, 0, read(packages.local(work, kind.spoken)))
    return listed
