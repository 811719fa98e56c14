"""Reads the files inside a compiled Qt resource (.rcc)."""
import struct
import zlib

MAGIC = b"qres"
COMPRESSED_ZLIB = 1
FOLDER = 2
COMPRESSED_ZSTD = 4


def _name(data, names, offset):
    length = struct.unpack_from(">H", data, names + offset)[0]
    return data[names + offset + 6 :][: 2 * length].decode("utf-16-be")


def _contents(data, start, flags):
    length = struct.unpack_from(">I", data, start)[0]
    stored = data[start + 4 : start + 4 + length]
    if flags & COMPRESSED_ZLIB:
        return zlib.decompress(stored[4:])
    if flags & COMPRESSED_ZSTD:
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(stored)
    return stored


def files(data):
    """Yields (path, contents) of each file in the resource `data`."""
    if data[:4] != MAGIC:
        raise ValueError("no compiled Qt resource")
    version, tree, contents, names = struct.unpack_from(">4I", data, 4)
    node_size = 22 if version >= 2 else 14
    waiting = [(0, "")]
    while waiting:
        index, folder = waiting.pop()
        node = tree + index * node_size
        name_offset, flags = struct.unpack_from(">IH", data, node)
        path = f"{folder}/{_name(data, names, name_offset)}" if index else ""
        if flags & FOLDER:
            count, first = struct.unpack_from(">2I", data, node + 6)
            waiting += [(first + i, path) for i in range(count)]
        else:
            offset = struct.unpack_from(">I", data, node + 10)[0]
            yield path.lstrip("/"), _contents(data, contents + offset, flags)
