"""The loop that all parts share: AdamW, warm-up and cosine decay, averaged weights, checkpoints, a log."""
import copy
import json
import math
import os
import time

import torch

SAVE_SECONDS = 120
WARM_UP = 100
LOG_EVERY = 50


class Schedule:
    """A fraction of the highest learning rate for each step."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step):
        if step < WARM_UP:
            return (step + 1) / WARM_UP
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, self.steps - WARM_UP)))


@torch.no_grad()
def average(mean, model, decay):
    for a, b in zip(mean.parameters(), model.parameters()):
        a.lerp_(b, 1 - decay)
    for a, b in zip(mean.buffers(), model.buffers()):
        a.copy_(b)


def run(name, model, loss, folder, steps, peak, decay=0.999, weight_decay=0.01, clip=1.0, parameters=None):
    """Trains `model` for `steps` steps; `loss(step)` gives (loss, value to log). Returns the averaged model.

    Goes on from `folder/name.part` where a run was cut off.
    """
    os.makedirs(folder, exist_ok=True)
    path, part = os.path.join(folder, f"{name}.pt"), os.path.join(folder, f"{name}.part")
    mean = copy.deepcopy(model)
    if os.path.exists(path):
        mean.load_state_dict(torch.load(path, weights_only=True))
        return mean.eval()
    trained = [p for p in (parameters or model.parameters()) if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=peak, weight_decay=weight_decay, betas=(0.9, 0.99))
    schedule, first, seconds = Schedule(steps), 0, 0.0
    if os.path.exists(part):
        state = torch.load(part, weights_only=True)
        model.load_state_dict(state["model"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
        first, seconds = state["step"], state["seconds"]
    model.train()
    started, saved, total, count = time.time() - seconds, time.time(), 0.0, 0
    with open(os.path.join(folder, f"{name}.log"), "a", encoding="utf-8") as log:
        for step in range(first, steps):
            for group in optimiser.param_groups:
                group["lr"] = peak * schedule(step)
            value, shown = loss(step)
            optimiser.zero_grad(set_to_none=True)  # parts that a loss leaves out are not moved, nor decayed
            value.backward()
            torch.nn.utils.clip_grad_norm_(trained, clip)
            optimiser.step()
            average(mean, model, min(decay, (1 + step) / (10 + step)))
            total, count = total + float(shown), count + 1
            if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
                seconds = time.time() - started
                line = {"step": step + 1, "seconds": round(seconds, 1), "loss": round(total / count, 5)}
                print(name, json.dumps(line), flush=True)
                log.write(json.dumps(line) + "\n")
                log.flush()
                total, count = 0.0, 0
            if time.time() - saved > SAVE_SECONDS:
                state = {"model": model.state_dict(), "mean": mean.state_dict(), "step": step + 1}
                state |= {"optimiser": optimiser.state_dict(), "seconds": time.time() - started}
                torch.save(state, part + ".new")
                os.replace(part + ".new", part)
                saved = time.time()
    torch.save(mean.state_dict(), path + ".new")
    os.replace(path + ".new", path)
    if os.path.exists(part):
        os.remove(part)
    return mean.eval()
