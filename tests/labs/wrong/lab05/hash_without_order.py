"""Sorts the token ids: a set, not a text."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q2 a chain: (1, 2, 3) and (3, 2, 1) collide: the order counts"


def block_hash(parent, token_ids, salt=""):
    return hashlib.sha256((parent or b"first") + repr((salt, sorted(token_ids))).encode()).digest()
