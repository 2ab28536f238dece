"""One byte for each token id: 0 and 256 are the same."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q2 a chain: two blocks that differ in one token collide"


def block_hash(parent, token_ids, salt=""):
    tokens = bytes(token_id % 256 for token_id in token_ids)
    return hashlib.sha256((parent or b"first") + repr(salt).encode() + tokens).digest()
