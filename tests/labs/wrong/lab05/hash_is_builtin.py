"""hash() of a tuple with a text: seeded in each process."""

LEFT = 95
SAYS = (
    "Q2 the same in every process: the hash changes from process to process ({}): hash() of a text is "
    "seeded; use hashlib"
)


def block_hash(parent, token_ids, salt=""):
    return str(hash((parent, tuple(token_ids), salt))).encode()
