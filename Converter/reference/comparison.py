"""Compares the stages of two runs, .npy file by .npy file."""
import math
import os

import numpy as np


class Mismatch(Exception):
    """A stage that cannot be compared: missing, of another shape, or not finite."""


def load_pair(name, reference, found):
    """(expected, found) of one stage. Integers stay integers; floats become float64."""
    arrays = []
    for folder in (reference, found):
        path = os.path.join(folder, f"{name}.npy")
        if not os.path.exists(path):
            raise Mismatch(f"{path} is missing")
        array = np.load(path)
        arrays.append(array.astype(np.int64 if array.dtype.kind in "iu" else np.float64))
    if arrays[0].shape != arrays[1].shape:
        raise Mismatch(f"{name}: shape {arrays[1].shape}, expected {arrays[0].shape}")
    for array in arrays:
        if not np.all(np.isfinite(array)):
            raise Mismatch(f"{name} holds a value that is not finite")
    return arrays


def different(expected, found):
    """The number of elements that differ."""
    return int(np.count_nonzero(expected != found))


def maximum(expected, found):
    """The greatest absolute difference."""
    return float(np.abs(expected - found).max())


def relative(expected, found):
    """The relative L2 error."""
    return float(np.linalg.norm(expected - found) / np.linalg.norm(expected))


def psnr(expected, found):
    """Peak signal-to-noise ratio of pictures in [0, 1], in dB."""
    error = float(np.mean((expected - found) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


#: stage: (measure, its unit, whether greater is better)
MEASURES = {
    "fbank": (maximum, "max abs", False),
    "token_ids": (different, "different", False),
    "noise": (maximum, "max abs", False),
    "audio_features": (relative, "relative L2", False),
    "audio_token": (relative, "relative L2", False),
    "prompt_embeddings": (relative, "relative L2", False),
    "eps_first": (relative, "relative L2", False),
    "image": (psnr, "PSNR dB", True),
}


def limits(weights, size):
    """The acceptance limit of every stage."""
    exact = {"fbank": 1e-3, "token_ids": 0, "noise": 1e-5}
    if weights == "f32":
        network = {name: 1e-3 for name in ("audio_features", "audio_token", "prompt_embeddings", "eps_first")}
        return exact | network | {"image": 60.0}
    return exact | {
        "audio_features": 1.5e-2,
        "audio_token": 1.5e-2,
        "prompt_embeddings": 3e-2,
        "eps_first": 4e-2 if size == "tiny" else 3e-2,
        "image": 40.0,
    }


def compare(reference, found, stage_limits):
    """[(stage, unit, value or reason, limit, passed)] for every stage that has a limit."""
    rows = []
    for name, limit in stage_limits.items():
        measure, unit, greater_is_better = MEASURES[name]
        try:
            value = measure(*load_pair(name, reference, found))
        except Mismatch as mismatch:
            rows.append((name, unit, str(mismatch), limit, False))
            continue
        rows.append((name, unit, value, limit, value >= limit if greater_is_better else value <= limit))
    return rows
