"""Sounds under chance: faster, slower, filtered, in rooms, in noise. And the filter bank of many at once."""
import functools
import math
from typing import NamedTuple

import numpy as np
import torch

RATE = 16000
FRAME, HOP, FFT, BINS = 400, 160, 512, 128
MEAN, DEVIATION = 15.41663, 6.55582


def _mel(frequency):
    return 1127 * np.log(1 + frequency / 700)


@functools.cache
def tables():
    window = torch.hann_window(FRAME, periodic=False).pow(0.85)
    edges = np.linspace(_mel(20), _mel(RATE / 2), BINS + 2)
    at = _mel(np.arange(FFT // 2) * RATE / FFT)[None]
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.maximum(0, np.minimum((at - left) / (centre - left), (right - at) / (right - centre)))
    return window, torch.from_numpy(weights.T.astype(np.float32))


def filter_bank(waves):
    """Kaldi's filter bank as AudioToken uses it: [count, samples] -> [count, frames, 128], normalised."""
    window, mel = tables()
    frames = (waves * 32768).unfold(1, FRAME, HOP)
    frames = frames - frames.mean(2, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[..., :1], frames[..., :-1]], 2)
    power = torch.fft.rfft(frames * window, FFT).abs()[..., : FFT // 2].pow(2)
    energy = (power @ mel).clamp_min(torch.finfo(torch.float32).eps).log()
    return (energy - MEAN) / (2 * DEVIATION)


def _curve(random, frequencies, decibels):
    """A smooth random response."""
    knots = np.linspace(math.log(60), math.log(RATE / 2), 6)
    gains = random.uniform(-decibels, decibels, 6)
    return 10 ** (np.interp(np.log(frequencies + 1), knots, gains) / 20)


def _coloured_noise(random, count, frequencies):
    spectrum = np.fft.rfft(random.standard_normal(count).astype(np.float32))
    return np.fft.irfft(spectrum * (frequencies + 50) ** -random.uniform(0, 1), count).astype(np.float32)


def varied(clip, count, random, others, strength=1.0):
    """`count` samples of a clip that repeats, after everything that chance does to it."""
    speed = 2 ** (strength * random.uniform(-0.4, 0.4))
    clip = np.interp(np.arange(0, len(clip) - 1, speed), np.arange(len(clip)), clip).astype(np.float32)
    if random.random() < 0.3 and len(clip) > RATE // 2:  # a part of it
        length = int(len(clip) * random.uniform(0.55, 1))
        first = random.integers(0, len(clip) - length + 1)
        clip = clip[first : first + length]
    pause = np.zeros(int(RATE * random.choice((0, random.uniform(0, 0.15), random.uniform(0, 0.8)))), np.float32)
    once = np.concatenate([clip, pause])
    once = np.roll(once, -random.integers(0, len(once)))
    wave = np.tile(once, count // len(once) + 1)[:count]
    wave = wave / max(1e-5, np.sqrt((wave**2).mean()))
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    response = _curve(random, frequencies, 10 * strength)
    if random.random() < 0.3:  # as of a small or a cheap recorder
        response = response / (1 + (frequencies / random.uniform(2000, 5000)) ** 8)
    if random.random() < 0.2:
        response = response / (1 + (random.uniform(100, 500) / (frequencies + 1)) ** 4)
    if random.random() < 0.4:  # a room
        length = int(RATE * random.uniform(0.05, 0.4))
        tail = random.standard_normal(length) * np.exp(-np.arange(length) * 5 / length)
        room = np.zeros(count, np.float32)
        room[: min(length, count)] = tail[:count] * random.uniform(0.02, 0.15) / math.sqrt(length / 800)
        room[0] = 1
        response = response * np.fft.rfft(room)
    wave = np.fft.irfft(np.fft.rfft(wave) * response, count).astype(np.float32)
    wave = wave / max(1e-5, np.sqrt((wave**2).mean()))
    noise = _coloured_noise(random, count, frequencies)
    wave = wave + noise / max(1e-5, noise.std()) * 10 ** (-random.uniform(8, 60) / 20)
    if random.random() < 0.2:
        other = others[random.integers(len(others))]
        other = np.tile(other, count // len(other) + 1)[:count]
        wave = wave + other / max(1e-5, np.sqrt((other**2).mean())) * 10 ** (-random.uniform(12, 30) / 20)
    return wave / max(1e-5, np.abs(wave).max()) * 10 ** (-random.uniform(0, 26) / 20)


class Pool(NamedTuple):
    banks: torch.Tensor  # f16 [count, frames, 128]
    kinds: torch.Tensor


def pool(recordings, spoken, count, per_kind, seed):
    """Filter banks of varied sounds of `count` samples; half of those of a kind are recordings, half are spoken."""
    random = np.random.default_rng(seed)
    others = [clip for clips in recordings for clip in clips]
    banks, kinds = [], []
    for index in range(len(recordings)):
        waves = []
        for number in range(per_kind):
            clips = recordings[index] if number % 2 == 0 else spoken[index]
            clip = clips[number // 2 % len(clips)]
            waves.append(varied(clip, count, random, others, 1.0 if number % 2 == 0 else 0.5))
            kinds.append(index)
            if len(waves) == 64 or number == per_kind - 1:
                banks.append(filter_bank(torch.from_numpy(np.stack(waves).astype(np.float32))).half())
                waves = []
    return Pool(torch.cat(banks), torch.tensor(kinds))
