"""(1, 23) and (12, 3) collide."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q2 a chain: (1, 23) and (12, 3) collide: separate the token ids"


def block_hash(parent, token_ids, salt=""):
    text = f"{len(salt)}:{salt}:{''.join(map(str, token_ids))}"
    return hashlib.sha256((parent or b"first") + text.encode()).digest()
