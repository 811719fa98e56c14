"""The BEATs encoder of SpeechBrain, wired to take a checkpoint's own cfg and to return AudioToken's features.

Only two files of the installed packages run: SpeechBrain's `beats.py` and torchaudio's `compliance/kaldi.py`. Both are
loaded by path under stand-in packages, so that neither package's own dependencies are needed. TORCHAUDIO_DIR names the
folder that holds torchaudio (`pip install --no-deps --target`).
"""
import importlib.machinery
import importlib.util
import os
import sys
import types

import torch

BEATS_MODULE = "speechbrain/lobes/models/beats.py"
KALDI_MODULE = "torchaudio/compliance/kaldi.py"
FEATURE_LAYERS = (4, 8, 12)


def _stand_in_package(name, path=None):
    module = types.ModuleType(name)
    module.__path__ = [path] if path else []
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    sys.modules[name] = module
    return module


def _module_from_file(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _folder_holding(relative_path, folders):
    for folder in folders:
        if os.path.exists(os.path.join(folder, relative_path)):
            return folder
    sys.exit(f"{relative_path} was not found; install it as README.md says and set TORCHAUDIO_DIR")


def load():
    """SpeechBrain's BEATs module."""
    if "sb_beats" in sys.modules:
        return sys.modules["sb_beats"]
    speechbrain = _folder_holding(BEATS_MODULE, sys.path)
    torchaudio = _folder_holding(KALDI_MODULE, [os.environ.get("TORCHAUDIO_DIR", "")])
    package = _stand_in_package("torchaudio", os.path.join(torchaudio, "torchaudio"))
    package.compliance = _stand_in_package("torchaudio.compliance")
    package.functional = types.SimpleNamespace()
    package.compliance.kaldi = _module_from_file("torchaudio.compliance.kaldi", os.path.join(torchaudio, KALDI_MODULE))
    for name in ("speechbrain", "speechbrain.dataio", "speechbrain.dataio.dataio"):
        _stand_in_package(name)
    sys.modules["speechbrain.dataio.dataio"].length_to_mask = lambda *arguments, **options: None
    return _module_from_file("sb_beats", os.path.join(speechbrain, BEATS_MODULE))


def build(cfg):
    """A BEATs model in eval mode with random weights, shaped by a checkpoint's cfg."""
    module = load()
    config_class = module.BEATsConfig
    module.BEATsConfig = lambda ignored=None: config_class(cfg)
    try:
        return module.BEATs().eval()
    finally:
        module.BEATsConfig = config_class


def release_names(state_dict):
    """The weight-norm names of the released file (`weight_g`, `weight_v`) from those that newer torch writes."""
    return {
        name.replace("parametrizations.weight.original0", "weight_g")
        .replace("parametrizations.weight.original1", "weight_v"): tensor
        for name, tensor in state_dict.items()
    }


def module_names(state_dict):
    """The inverse of `release_names`; names already new stay."""
    return {
        name.replace("weight_g", "parametrizations.weight.original0")
        .replace("weight_v", "parametrizations.weight.original1"): tensor
        for name, tensor in state_dict.items()
    }


def load_checkpoint(checkpoint):
    """The model of a checkpoint's cfg, with its weights."""
    model = build(checkpoint["cfg"])
    model.load_state_dict(module_names(checkpoint["model"]))
    return model


@torch.no_grad()
def features_of(model, waveform):
    """waveform [1, samples] at 16 kHz -> (normalised filter bank [frames, 128], features [tokens, 3 * width])."""
    filter_bank = model.preprocess(waveform)
    x = model.patch_embedding(filter_bank.unsqueeze(1))
    x = x.reshape(*x.shape[:2], -1).transpose(1, 2)
    x = model.layer_norm(x)
    if model.post_extract_proj is not None:
        x = model.post_extract_proj(x)
    model.encoder.layer_wise_gradient_decay_ratio = 1.0
    _, layers = model.encoder(x, padding_mask=None, output_all_hiddens=True)
    return filter_bank[0], torch.cat([layers[i].transpose(0, 1) for i in FEATURE_LAYERS], 2)[0]


def features(checkpoint, waveform):
    """What `features_of` gives for a checkpoint's model."""
    return features_of(load_checkpoint(checkpoint), waveform)
