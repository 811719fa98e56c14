"""Weights that are a function of their name, equal to the bit here and in Converter/RandomCheckpoint.

Element i (from 0) of tensor `name` in file `path`:

  seed  = FNV-1a 64 of the UTF-8 bytes of "path:name"
  z     = splitmix64's finaliser of seed + (i + 1) * 0x9E3779B97F4A7C15   (mod 2^64)
  unit  = ((z >> 40) - 2^23) * 2^-23                                      exact in float32, in [-1, 1)
  value = mean + bound * unit                                             two float32 roundings, no fused multiply-add
"""
import numpy as np

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MASK = 0xFFFFFFFFFFFFFFFF


def fnv1a64(data):
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = ((digest ^ byte) * 0x100000001B3) & MASK
    return digest


def units(seed, count):
    """float32 [count], uniform in [-1, 1)."""
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN_GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.int32) - np.int32(1 << 23)).astype(np.float32) * np.float32(2.0**-23)


def values(path, name, shape, mean, bound):
    """float32 of `shape`."""
    count = int(np.prod(shape, dtype=np.int64))
    unit = units(fnv1a64(f"{path}:{name}".encode()), count)
    return (np.float32(mean) + np.float32(bound) * unit).reshape(shape)
