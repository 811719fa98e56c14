"""Makes the goldens of AudioTokenTests from PyTorch, torchaudio, diffusers, transformers and soundfile.

    TORCHAUDIO_DIR=DIR python make_fixtures.py --bpe bpe_simple_vocab_16e6.txt.gz

`pip install torch diffusers transformers soundfile numpy` and `pip install --no-deps --target DIR torchaudio`: of the last only two
files of plain Python are used. The bpe file is the merges list of CLIP. Everything is synthesised from fixed seeds, and comes
out the same but for dates and serial numbers that libsndfile writes into sounds.
Arrays are raw little-endian files; `.f32` is float32.
"""
import argparse
import gzip
import importlib.util
import json
import math
import os
import sys
import tempfile
import types
import unicodedata

import numpy as np
import soundfile
import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def save(name, array, kind="<f4"):
    np.asarray(array).astype(kind).tofile(os.path.join(HERE, name))


def save_json(name, value):
    with open(os.path.join(HERE, name), "w") as file:
        json.dump(value, file, indent=0, ensure_ascii=True)
        file.write("\n")


def torchaudio_module(name):
    """One file of torchaudio without its compiled extension."""
    root = os.path.join(os.environ["TORCHAUDIO_DIR"], "torchaudio")
    for package in ("torchaudio", "torchaudio.functional", "torchaudio.compliance", "torchaudio._internal"):
        if package not in sys.modules:
            module = types.ModuleType(package)
            module.__path__ = []
            module.__getattr__ = lambda attribute: None
            sys.modules[package] = module
    for extra in ("torchaudio._extension", "torchaudio._internal.module_utils", "torchaudio.functional.filtering"):
        stub = types.ModuleType(extra)
        stub.__getattr__ = lambda attribute: (lambda *a, **k: (lambda f: f))
        sys.modules.setdefault(extra, stub)
    path = os.path.join(root, *name.split(".")[1:]) + ".py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    for stub in [key for key in sys.modules if key.startswith("torchaudio")]:
        del sys.modules[stub]
    return module


def test_signal(rate, seconds, seed):
    """A sweep, a few tones and noise, loud and quiet, with half a tenth of silence."""
    count = int(rate * seconds)
    t = np.arange(count) / rate
    noise = np.random.default_rng(seed).standard_normal(count)
    x = 0.3 * np.sin(2 * np.pi * (50 + 0.2 * rate * t) * t) + 0.2 * np.sin(2 * np.pi * 440 * t) + 0.05 * noise + 0.02
    x *= 0.2 + 0.8 * np.abs(np.sin(3 * np.pi * t / seconds))
    x[count // 2 : count // 2 + rate // 20] = 0
    return x.astype(np.float32)


def slow_resample(x, old, new):
    """The formula of torchaudio's kernel in float64, one output at a time; for ratios whose table would be gigabytes."""
    base = min(old, new) * 0.99
    reach = math.ceil(6 * old / base) + 1
    out = []
    for j in range(-(-len(x) * new // old)):
        centre = j * old // new
        i = np.arange(max(0, centre - reach), min(len(x), centre + reach + 2))
        t = np.clip((i * new - j * old) * base / (old * new), -6, 6)
        h = np.sinc(t) * np.cos(np.pi * t / 12) ** 2 * base / old
        out.append(np.dot(x[i].astype(np.float64), h))
    return np.array(out)


def make_resampled():
    functional = torchaudio_module("torchaudio.functional.functional")
    for rate in (8000, 11025, 22050, 44100, 48000, 96000, 12345, 16001, 44101, 192000, 16000):
        x = test_signal(rate, min(0.15, 3000 / rate), rate)
        exact = slow_resample(x, rate, 16000)
        y = exact
        if rate not in (44101, 16001):
            y = functional.resample(torch.from_numpy(x), rate, 16000).numpy()
            wide = functional.resample(torch.from_numpy(x).double(), rate, 16000).numpy()
            if rate != 16000:
                assert np.abs(exact - wide).max() < 1e-9
        save(f"resample_{rate}_in.f32", x)
        save(f"resample_{rate}_out.f32", y)
        save(f"resample_{rate}_exact.f32", y if rate == 16000 else exact)


def make_filter_bank():
    kaldi = torchaudio_module("torchaudio.compliance.kaldi")
    x = test_signal(16000, 1.0, 7)
    save("fbank_in.f32", x)
    for name, wave in (("out", torch.from_numpy(x)), ("exact", torch.from_numpy(x).double())):
        y = kaldi.fbank(wave[None] * 2**15, num_mel_bins=128, sample_frequency=16000, frame_length=25, frame_shift=10)
        save(f"fbank_{name}.f32", (y - 15.41663) / (2 * 6.55582))


def make_noise():
    cases = []
    for seed, count in [(0, 16), (0, 1024), (1, 20), (42, 1032), (123456789, 17), (2**32 + 5, 31), (2**63 + 99, 16),
                        (7, 1), (7, 2), (7, 15), (3, 4 * 64 * 40)]:
        g = torch.Generator("cpu").manual_seed(seed - 2**64 if seed >= 2**63 else seed)
        name = f"noise_{seed}_{count}.f32"
        save(name, torch.randn(count, generator=g))
        cases.append({"seed": str(seed), "count": count, "file": name})
    save_json("noise.json", cases)
    g = torch.Generator("cpu").manual_seed(11)
    save("noise_sequence.f32", torch.cat([torch.randn(n, generator=g) for n in (3, 20, 2, 1, 33, 5)]))


def make_sampler():
    from diffusers import DDIMScheduler, PNDMScheduler

    g = torch.Generator().manual_seed(5)
    count = 24
    predictions = torch.randn(51, count, generator=g)
    start = torch.randn(count, generator=g)
    save("sampler_predictions.f32", predictions)
    save("sampler_start.f32", start)
    sd = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False)
    plain = dict(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", steps_offset=0, set_alpha_to_one=True)
    runs = []

    def run(kind, steps, **config):
        if kind == "pndm":
            scheduler = PNDMScheduler(**config, skip_prk_steps=True)
        else:
            scheduler = DDIMScheduler(**config)
        scheduler.set_timesteps(steps)
        x, states = start[None].clone(), []
        for call, t in enumerate(scheduler.timesteps):
            x = scheduler.step(predictions[call][None], t, x).prev_sample
            states.append(x[0].numpy())
        name = f"sampler_{len(runs)}.f32"
        save(name, np.stack(states))
        full = dict(scheduler.config)
        keys = ("beta_start", "beta_end", "beta_schedule", "steps_offset", "set_alpha_to_one", "prediction_type",
                "timestep_spacing", "clip_sample", "clip_sample_range")
        runs.append({"kind": kind, "steps": steps, "config": {k: full[k] for k in keys if k in full},
                     "timesteps": scheduler.timesteps.tolist(), "file": name})

    for steps in (1, 2, 3, 4, 10, 50):
        run("pndm", steps, **sd)
    run("pndm", 20, **sd, prediction_type="v_prediction")
    run("pndm", 7, **plain, timestep_spacing="trailing")
    run("pndm", 6, **plain, timestep_spacing="linspace")
    for steps in (1, 10, 50):
        run("ddim", steps, **sd, clip_sample=False)
    run("ddim", 10, **sd, clip_sample=False, prediction_type="v_prediction")
    run("ddim", 10, **sd)
    run("ddim", 10, **plain, clip_sample_range=2.0, prediction_type="v_prediction")
    run("ddim", 7, **plain, timestep_spacing="trailing")
    run("ddim", 9, **plain, timestep_spacing="linspace")
    save_json("sampler.json", runs)
    save("alphas_scaled_linear.f32", DDIMScheduler(**sd).alphas_cumprod)
    save("alphas_linear.f32", DDIMScheduler(**plain).alphas_cumprod)
    # A sum over each list of timesteps, its elements weighted by 1, 2, 3, ...; null where one leaves the training steps.
    sums = {}
    for spacing in ("leading", "trailing", "linspace"):
        scheduler = DDIMScheduler(**sd, timestep_spacing=spacing)
        sums[spacing] = []
        for steps in range(1, 1001):
            scheduler.set_timesteps(steps)
            t = scheduler.timesteps.numpy()
            inside = t.min() >= 0 and t.max() < 1000
            sums[spacing].append(int((t * np.arange(1, len(t) + 1)).sum()) if inside else None)
    save_json("timesteps.json", sums)


PROMPTS = """a photo of <*>, 4k, high resolution
<*>
a<*>b
<*><*>
 <*>  <*>
a photo of < * >
a photo of <*
<*>!
<*>'s dog
A Photo OF A CAT
hello world
hello,world
Hello...   world!!!
it's they're we've i'm you'll he'd don't
IT'S THEY'RE WE'VE
'tis the season
o'clock rock'n'roll
''s 's' ''''s
1234567890
4k 8K 1080p 3.14159 1,000,000
1st 2nd 3rd
$100 & 50% off @ home #1
e-mail: someone@example.com
https://example.com/path?query=1&b=2
snake_case camelCase kebab-case
(parentheses) [brackets] {braces}
"quoted" text
\u201ccurly\u201d \u2018quotes\u2019 it\u2019s
en\u2013dash em\u2014dash ellipsis\u2026
caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00fcber stra\u00dfe
cafe\u0301 nai\u0308ve u\u0308ber
\u212bngstr\u00f6m \u2126 ohm \u212a kelvin
\u0130STANBUL I\u015eIK
\u03a3\u0391\u03a3 \u03a6\u03b9\u03bb\u03bf\u03c3\u03bf\u03c6\u03af\u03b1
\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442
\u4e2d\u6587\u6587\u672c
\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \u30ab\u3099
\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab\u1100\u116e\u11a8
\u0627\u0644\u0639\u0631\u0628\u064a\u0629
\u05e2\u05d1\u05e8\u05d9\u05ea
\u0939\u093f\u0928\u094d\u0926\u0940
\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22
Vie\u0323\u0302t Nam Vi\u1ec7t Nam
\U0001f600 \U0001f436\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467
cat\U0001f63acat
\u2764\ufe0f \u00a9 \u2122 \u00ae
\u00bd \u00b2 \u2167 \u0663
\u00a0non\u3000breaking\u2003spaces\u0085next
zero\u200bwidth\u200djoin
nul\u0000char \u001c control \u007f
soft\u00adhyphen
<|startoftext|> hello <|endoftext|>
hello<|endoftext|>world
<|STARTOFTEXT|>!! x
<|EndOfText|>'s!?
!<|StartOfText|>!
<|startoftext|>'s!
wow!!! cat! "!"
!
</w> a</w>
<*>\u0338
x\u0338 =\u0338
supercalifragilisticexpialidocious antidisestablishmentarianism
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
----------------------------------------------------------------
._-=+*/\\|~`^
a painting of a fox, trending on artstation, highly detailed, 8k, octane render, by greg rutkowski
\ufb01ne \uff21\uff22\uff23 \u1e9e"""


def build_tokenizer(folder, bpe, pad):
    merges = gzip.open(bpe).read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    order = printable + [b for b in range(256) if b not in printable]
    spelling, extra = {}, 0
    for b in order:
        spelling[b] = chr(b) if b in printable else chr(256 + extra)
        extra += b not in printable
    vocabulary = [spelling[b] for b in order] + [spelling[b] + "</w>" for b in order] + ["".join(m.split()) for m in merges]
    ids = {v: i for i, v in enumerate(vocabulary + ["<|startoftext|>", "<|endoftext|>"])}
    assert len(ids) == 49408
    json.dump(ids, open(folder + "/vocab.json", "w"))
    open(folder + "/merges.txt", "w").write("#version: 0.2\n" + "\n".join(merges) + "\n")
    json.dump({"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>",
               "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad},
              open(folder + "/tokenizer_config.json", "w"))
    pairs = [[ids[a] for a in m.split()] for m in merges]
    assert all(ids["".join(m.split())] == 512 + rank for rank, m in enumerate(merges))
    return pairs, [ids[spelling[b]] for b in range(256)], [ids[spelling[b] + "</w>"] for b in range(256)]


def make_tokenizer(bpe):
    from transformers import CLIPTokenizer

    prompts = PROMPTS.split("\n")
    prompts += ["", " ", "\n\t ", "tab\tnew\nline\r\nend \u2028x"]
    prompts.append(" ".join(["a photo of <*> and a dog"] * 20))
    prompts.append(" ".join(["word"] * 74) + " <*>")
    prompts.append(" ".join(["word"] * 75) + " <*>")
    prompts.append(" ".join(["word"] * 76))
    prompts.append("1" * 200)
    # NFC: every composed character's parts, as far as they are two or more
    marks = [chr(c) for c in range(0x110000) if unicodedata.decomposition(chr(c)) and not unicodedata.decomposition(chr(c)).startswith("<")
             and unicodedata.normalize("NFC", chr(c)) == chr(c) and not 0xAC00 <= c <= 0xD7A3]
    for i in range(0, len(marks), 12):
        prompts.append("".join(unicodedata.normalize("NFD", c) for c in marks[i : i + 12]))
    cases = []
    for pad in ("<|endoftext|>", "!"):
        with tempfile.TemporaryDirectory() as folder:
            pairs, byte_tokens, end_tokens = build_tokenizer(folder, bpe, pad)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            assert tokenizer.add_tokens("<*>") == 1
            for prompt in prompts if pad != "!" else prompts[:72]:
                ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=77).input_ids
                while len(ids) > 1 and ids[-1] == ids[-2]:
                    ids.pop()
                cases.append({"padding": 49407 if pad != "!" else 0, "text": prompt, "ids": ids})
    save("merges.u16", pairs, "<u2")
    save_json("tokenizer.json", {"bytes": byte_tokens, "ends": end_tokens, "cases": cases})


def make_sounds():
    rate, seconds = 16000, 0.3

    def tones(rate, seconds=seconds):
        t = np.arange(int(rate * seconds)) / rate
        return np.stack([0.5 * np.sin(2 * np.pi * 440 * t), 0.25 * np.sin(2 * np.pi * 1000 * t)], 1).astype(np.float32)

    def write(name, x, rate, **kind):
        soundfile.write(os.path.join(HERE, name), x, rate, **kind)

    write("mono.wav", tones(16000)[:, 0], 16000, subtype="PCM_16")
    write("stereo.flac", tones(44100), 44100, subtype="PCM_16")
    write("stereo.ogg", tones(22050), 22050, format="OGG", subtype="VORBIS")
    write("stereo.mp3", tones(24000), 24000, format="MP3")
    write("mono24.wav", tones(8000)[:, 0], 8000, subtype="PCM_24")
    write("mono8.wav", tones(8000)[:, 0], 8000, subtype="PCM_U8")
    write("six.wav", np.repeat(tones(11025)[:, :1], 6, 1) * np.arange(6) / 2.5, 11025, subtype="FLOAT")
    bad = tones(8000)[:, 0].copy()
    bad[1000] = np.nan
    write("nan.wav", bad, 8000, subtype="FLOAT")
    write("none.wav", bad[:0], 8000, subtype="PCM_16")
    ramp = np.arange(4000, dtype=np.float32) / 8192
    write("ramp.wav", ramp, 1000, subtype="PCM_16")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bpe", required=True)
    options = arguments.parse_args()
    make_sounds()
    make_resampled()
    make_filter_bank()
    make_noise()
    make_sampler()
    make_tokenizer(options.bpe)


if __name__ == "__main__":
    main()
