"""Adapters share KV."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q2 a chain: two adapters share KV: put the salt into the hash"


def block_hash(parent, token_ids, salt=""):
    return hashlib.sha256((parent or b"first") + repr(list(token_ids)).encode()).digest()
