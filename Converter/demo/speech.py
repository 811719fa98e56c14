"""Spoken names by eSpeak NG, through its library."""
import ctypes
import os

import numpy as np

SYNCHRONOUS = 2
UTF8 = 1
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4


class Speaker:
    """Says texts; one at a time in a process, because the library keeps its state to itself."""

    def __init__(self):
        import espeakng_loader

        data = espeakng_loader.get_data_path()
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.sample_rate = self.library.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(os.path.dirname(data)), 0)
        if self.sample_rate <= 0:
            raise SystemExit("eSpeak NG found no voices")
        self.parts = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._receive)
        self.library.espeak_SetSynthCallback(self.callback)

    def _receive(self, samples, count, _):
        if samples and count > 0:
            self.parts.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / 32768)
        return 0

    def say(self, text, voice, pitch=50, rate=170, intonation=50):
        """Samples at `sample_rate`."""
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SystemExit(f"eSpeak NG has no voice {voice}")
        for parameter, value in ((RATE, rate), (PITCH, pitch), (RANGE, intonation)):
            self.library.espeak_SetParameter(parameter, int(value), 0)
        self.parts = []
        encoded = text.encode() + b"\0"
        self.library.espeak_Synth(encoded, len(encoded), 0, 1, 0, UTF8, None, None)
        return np.concatenate(self.parts)
