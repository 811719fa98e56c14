"""Makes buckets.json: the bucket of every distance from -700 to 700 as BEATs computes it, in torch's float32.

    pip install torch
    python make_fixtures.py

The steps are those of `_relative_positions_bucket` in microsoft/unilm beats/backbone.py, which are T5's.
"""
import json
import math
import os

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
LARGEST = 700


def bucket(distances, buckets, maximum):
    buckets //= 2
    side = (distances > 0).to(torch.long) * buckets
    magnitude = torch.abs(distances)
    exact = buckets // 2
    far = torch.log(magnitude.float() / exact) / math.log(maximum / exact) * (buckets - exact)
    far = torch.min(exact + far.to(torch.long), torch.full_like(magnitude, buckets - 1))
    return side + torch.where(magnitude < exact, magnitude, far)


def main():
    distances = torch.arange(-LARGEST, LARGEST + 1)
    tables = []
    for buckets, maximum in ((320, 800), (32, 128), (30, 100), (4, 16384)):
        tables.append(
            {
                "buckets": buckets,
                "maximum_distance": maximum,
                "first": -LARGEST,
                "table": bucket(distances, buckets, maximum).tolist(),
            }
        )
    with open(os.path.join(HERE, "buckets.json"), "w") as file:
        file.write("[" + ",\n".join(json.dumps(table, separators=(",", ":")) for table in tables) + "]\n")


if __name__ == "__main__":
    main()
