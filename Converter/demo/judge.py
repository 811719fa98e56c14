"""A small network that names the animal in a picture. It learns from pictures alone and never meets the model."""
import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import autoencoder
import split
import training


def build(kinds):
    def block(inputs, outputs, stride):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )

    return nn.Sequential(
        block(3, 24, 2), block(24, 32, 1), block(32, 48, 2), block(48, 64, 1), block(64, 96, 2), block(96, 128, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, kinds),
    )  # fmt: skip


def disturbed(x, random):
    """Blur, noise and contrast of chance, so that the judge looks at shapes."""
    if random.random() < 0.5:
        side = random.integers(28, 64)
        x = functional.interpolate(functional.interpolate(x, int(side), mode="area"), 64, mode="bilinear")
    x = x * random.uniform(0.7, 1.2) + random.uniform(-0.15, 0.15)
    return (x + random.uniform(0, 0.12) * torch.randn_like(x)).clamp(-1, 1)


def train(pictures, kinds, folder, steps=900, batch=48, peak=3e-3, seed=7):
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = build(int(kinds.max()) + 1)
    targets = torch.from_numpy(kinds)

    def loss(step):
        chosen = random.integers(0, len(pictures), batch)
        logits = model(disturbed(autoencoder.to_tensor(pictures[chosen]), random))
        wrong = (logits.argmax(1) != targets[chosen]).float().mean()
        return functional.cross_entropy(logits, targets[chosen], label_smoothing=0.05), wrong

    return training.run("judge", model, loss, folder, steps, peak, decay=0.98)


def load(work):
    model = build(len(split.NAMES))
    model.load_state_dict(torch.load(os.path.join(work, "judge", "judge.pt"), weights_only=True))
    return model.eval()


@torch.no_grad()
def names(model, pictures):
    """The kind that the judge sees in each of the uint8 pictures, [count, 64, 64, 3]."""
    return torch.cat([model(autoencoder.to_tensor(part)).argmax(1) for part in np.array_split(pictures, len(pictures) // 128 + 1)]).numpy()


def share_right(model, pictures, kinds):
    return float((names(model, pictures) == kinds).mean())
