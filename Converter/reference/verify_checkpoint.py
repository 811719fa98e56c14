"""Reads a checkpoint set with torch and safetensors and compares every value with what its layout prescribes."""
import argparse
import os

import numpy as np
import torch
from safetensors.torch import load_file

import layouts
import tokenizer_files


def read_tensors(file, path):
    if file["kind"] == "safetensors":
        return load_file(path)
    contents = torch.load(path, weights_only=True)
    if "cfg" not in file:
        return contents
    if contents["cfg"] != layouts.cfg_dictionary(file["cfg"]):
        raise SystemExit(f"{path}: the cfg differs from the layout's")
    return contents["model"]


def verify_tensors(file, path, naming):
    tensors = read_tensors(file, path)
    new_names = file.get("newNames", {}) if naming == "new" else {}
    expected = {new_names.get(row["name"], row["name"]): row for row in file["tensors"]}
    expected.pop(None, None)
    if set(tensors) != set(expected):
        raise SystemExit(f"{path}: names differ: {sorted(set(tensors) ^ set(expected))[:5]}")
    for name, row in expected.items():
        values = layouts.checked_values(file["path"], row)
        found = tensors[name].numpy()
        if found.dtype != values.dtype or not np.array_equal(found, values):
            raise SystemExit(f"{path}: {name} differs from the layout")
    return len(expected)


def verify(layout, folder, naming):
    merges = tokenizer_files.read_merges()
    texts = {"vocabulary": tokenizer_files.vocabulary_text, "merges": tokenizer_files.merges_text}
    count = 0
    for file in layout["files"]:
        path = os.path.join(folder, file["path"])
        if "tensors" in file:
            count += verify_tensors(file, path, naming)
            continue
        with open(path, encoding="utf-8") as handle:
            expected = texts[file["kind"]](merges) if file["kind"] in texts else file["text"]
            if handle.read() != expected:
                raise SystemExit(f"{path} differs from the layout")
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layout")
    parser.add_argument("folder")
    parser.add_argument("--naming", default="hub", choices=("hub", "new"))
    options = parser.parse_args()
    count = verify(layouts.read(options.layout), options.folder, options.naming)
    print(f"{options.folder}: {count} tensors and every other file are as {options.layout} prescribes")


if __name__ == "__main__":
    main()
