"""Trains the audio encoder: BEATs, narrow, to tell the animals by their sounds."""
import os
import sys

import torch
from torch import nn
from torch.nn import functional

import augment
import training

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
import beats_reference  # noqa: E402
from checkpoint_models import Size, beats_cfg  # noqa: E402

PATCH_WIDTH, WIDTH, LAYERS, HEADS, FEED_FORWARD = 64, 96, 12, 4, 256
SHORT = 400 + 131 * 160  # samples: 132 frames, 64 tokens
LONG = 160000
LAYER_WEIGHTS = {4: 0.3, 8: 0.3, 12: 1.0}


def cfg(kinds):
    size = Size((), 0, 0, 0, (), 0, (), (PATCH_WIDTH, WIDTH, LAYERS, HEADS, FEED_FORWARD), 0)
    return beats_cfg(size) | {"encoder_layerdrop": 0.0, "predictor_class": kinds, "layer_wise_gradient_decay_ratio": 1.0}


@torch.no_grad()
def mark_rows(beats):
    """Begins with a position embedding that tells the 8 rows of patches apart, which takes long to learn.

    Some of the lowest bins of the filter bank are narrower than a line of the spectrum, hence always empty. What the
    others are above them marks the lowest row; the position convolution finds that mark at each patch's distance.
    """
    mel = augment.tables()[1][:, :16]
    empty = mel.sum(0) == 0
    kernel = torch.where(empty, -2 / (16 * empty.sum()), 2 / (16 * (~empty).sum()))
    beats.patch_embedding.weight[0, 0] = kernel.expand(16, 16)
    project, convolution = beats.post_extract_proj, beats.encoder.pos_conv[0]
    weight, per_group = convolution.weight.clone(), WIDTH // convolution.groups
    for row in range(8):
        group, place = row // 4, 1 + row % 4
        project.weight[group * per_group] = 0
        project.weight[group * per_group, 0] = 0.15
        weight[group * per_group + place] = 0
        for frame in (-2, -1, 0, 1, 2):
            weight[group * per_group + place, 0, weight.shape[2] // 2 - row + 8 * frame] = 0.5 ** abs(frame)
    convolution.weight = weight


class Classifier(nn.Module):
    """BEATs with a head on the mean of each of the layers that AudioToken reads; the last head is its own predictor."""

    def __init__(self, kinds):
        super().__init__()
        self.beats = beats_reference.build(cfg(kinds))
        mark_rows(self.beats)
        self.heads = nn.ModuleDict({str(n): nn.Linear(WIDTH, kinds) for n in LAYER_WEIGHTS if n != LAYERS})

    def layers(self, banks):
        """The outputs [batch, tokens, width] of the layers that AudioToken reads."""
        beats = self.beats
        x = beats.patch_embedding(banks.unsqueeze(1))
        x = beats.layer_norm(x.reshape(*x.shape[:2], -1).transpose(1, 2))
        x = beats.post_extract_proj(x)
        _, layers = beats.encoder(x, padding_mask=None, output_all_hiddens=True)
        return {number: layers[number].transpose(0, 1) for number in LAYER_WEIGHTS}

    def forward(self, banks):
        pooled = {number: x.mean(1) for number, x in self.layers(banks).items()}
        return {
            number: self.beats.predictor(x) if number == LAYERS else self.heads[str(number)](x)
            for number, x in pooled.items()
        }


def masked(banks, random):
    """SpecAugment: some frames and some bands of each become the mean."""
    banks = banks.clone()
    frames, bins = banks.shape[1:]
    for bank in banks:
        for _ in range(2):
            width = int(torch.randint(0, frames // 6, (), generator=random))
            first = int(torch.randint(0, frames - width, (), generator=random))
            bank[first : first + width] = bank.mean()
            width = int(torch.randint(0, bins // 6, (), generator=random))
            first = int(torch.randint(0, bins - width, (), generator=random))
            bank[:, first : first + width] = bank.mean()
    return banks


def batch_loss(model, pool, size, random, mixing):
    """Cross entropy with mixup of half of the batches."""
    chosen = torch.randint(0, len(pool.kinds), (size,), generator=random)
    banks, kinds = masked(pool.banks[chosen].float(), random), pool.kinds[chosen]
    share = 1.0
    if torch.rand((), generator=random) < mixing:
        share = 0.5 + 0.5 * float(torch.rand((), generator=random))
        order = torch.randperm(size, generator=random)
        banks = share * banks + (1 - share) * banks[order]
    logits, loss = model(banks), 0
    for number, weight in LAYER_WEIGHTS.items():
        loss = loss + weight * share * functional.cross_entropy(logits[number], kinds, label_smoothing=0.05)
        if share < 1:
            loss = loss + weight * (1 - share) * functional.cross_entropy(logits[number], kinds[order])
    return loss, (logits[LAYERS].argmax(1) != kinds).float().mean()


def train(name, pool, folder, steps, batch, peak, kinds, start=None, seed=0, mixing=0.4):
    """The log's "loss" is the share of wrong answers on varied, masked and mixed sounds."""
    torch.manual_seed(seed)
    model = Classifier(kinds)
    if start is not None:
        model.load_state_dict(start.state_dict())
    random = torch.Generator().manual_seed(seed)
    return training.run(
        name, model, lambda step: batch_loss(model, pool, batch, random, mixing), folder, steps, peak, decay=0.995,
        weight_decay=0.05,
    )


def save(model, path):
    """Writes the checkpoint in BEATs' own layout."""
    kinds = model.beats.predictor.out_features
    state = {name: tensor.clone() for name, tensor in beats_reference.release_names(model.beats.state_dict()).items()}
    torch.save({"cfg": cfg(kinds), "model": state}, path)


@torch.no_grad()
def features(model, banks):
    """AudioToken's features [count, tokens, 3 * width]."""
    return torch.cat(list(model.layers(banks).values()), 2)
