"""A checksum of 32 bits: collisions come soon."""

import zlib

LEFT = 85
SAYS = "Q2 a chain: a hash of 4 bytes: two texts of thousands have the same one, and a collision hands out"


def block_hash(parent, token_ids, salt=""):
    return zlib.crc32((parent or b"first") + repr((salt, list(token_ids))).encode()).to_bytes(4, "big")
