"""Lets a program start on a machine whose C library is older than the one it was built with.

The program asks for a few symbols of newer versions. Their versions are marked as weak, so that the loader goes on
without them, and older.c has the symbols. Usage: weaken.py PROGRAM VERSION...
"""

import struct
import sys

VERSION_NEEDS = 0x6FFFFFFE
WEAK = 2

path, versions = sys.argv[1], {name.encode() for name in sys.argv[2:]}
with open(path, "r+b") as file:
    data = bytearray(file.read())
    assert data[:6] == b"\x7fELF\x02\x01", "not a 64-bit little-endian ELF file"
    (sections,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, sections + index * size) for index in range(count)]
    for header in headers:
        kind, offset, link = header[1], header[4], header[6]
        if kind != VERSION_NEEDS:
            continue
        names = headers[link][4]
        while True:
            _, entries, _, first, following = struct.unpack_from("<HHIII", data, offset)
            entry = offset + first
            for _ in range(entries):
                _, flags, _, name, next_entry = struct.unpack_from("<IHHII", data, entry)
                start = names + name
                if bytes(data[start : data.index(0, start)]) in versions:
                    struct.pack_into("<H", data, entry + 4, flags | WEAK)
                entry += next_entry
            if following == 0:
                break
            offset += following
    file.seek(0)
    file.write(data)
