"""Nothing stands between the salt and the token ids."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q2 a chain: salt '1' with token 23 and salt '12' with token 3 collide: separate salt and token ids"


def block_hash(parent, token_ids, salt=""):
    text = salt + ",".join(map(str, token_ids))
    return hashlib.sha256((parent or b"first") + text.encode()).digest()
