"""Each block hashed alone."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q2 a chain: a block's hash must depend on everything in front of it: the same 4 tokens after "
    "another beginning have other KV (attention and RoPE)"
)


def block_hash(parent, token_ids, salt=""):
    return hashlib.sha256(repr((salt, list(token_ids))).encode()).digest()
