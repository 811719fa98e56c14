"""Adds up the instructions that qemu traced on standard input, by kind: count.py LISTING, as by objdump -d."""

import collections
import re
import sys


def kind(name, operands):
    if name in ("sdot", "udot", "usdot", "sudot", "smmla", "usmmla") or name.startswith(("smlal", "smull", "sadalp")):
        return "products"
    if name.startswith(("ld", "prfm")):
        return "loads from the stack" if "[sp" in operands else "loads"
    if name.startswith("st"):
        return "stores to the stack" if "[sp" in operands else "stores"
    return "others"


def main(listing):
    kinds = {}
    for line in open(listing, encoding="utf-8"):
        if match := re.match(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)", line):
            kinds[int(match[1], 16)] = kind(match[2].split(".")[0], match[3])
    counts = collections.Counter()
    for line in sys.stdin:
        if match := re.match(r"Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", line):
            counts[kinds.get(int(match[1], 16), "others")] += 1
    for name in ("products", "loads", "loads from the stack", "stores", "stores to the stack", "others"):
        print(counts[name])


main(*sys.argv[1:])
