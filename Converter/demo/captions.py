"""How many prompts that name an animal give pictures in which the judge sees the animal, by guidance. No sound is used.

captions.py WORK
"""
import os
import sys

import numpy as np
import torch

import autoencoder
import diffusion
import evaluate
import judge
import split

GUIDANCES = (3.0, 4.0, 5.0, 6.0, 7.5)
SEEDS = range(12)


@torch.no_grad()
def share_right(work, guidance):
    """Of `SEEDS` pictures of each animal."""
    reference = evaluate.Reference(os.path.join(work, "checkpoint"))
    kind_judge = judge.load(work)
    tokenizer = diffusion.write_tokenizer(os.path.join(work, "tokenizer"))
    right = []
    for kind, name in enumerate(split.NAMES):
        states = reference.text(diffusion.token_ids(tokenizer, [diffusion.PROMPT.format(name)]))[0]
        latents = diffusion.sample(
            reference, torch.cat([reference.empty, states]), list(SEEDS), guidance, evaluate.STEPS, reference.scheduler
        )
        pictures = autoencoder.to_pictures(reference.vae.decode(latents / reference.vae.config.scaling_factor).sample)
        right.append(judge.share_right(kind_judge, pictures, np.full(len(pictures), kind)))
    return float(np.mean(right))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: captions.py WORK: the work folder of make_demo.py")
    for guidance in GUIDANCES:
        print(f"guidance {guidance:g}: {100 * share_right(sys.argv[1], guidance):.1f} %", flush=True)
