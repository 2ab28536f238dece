"""Sums tokens, as if two sequences could share a block."""

LEFT = 90
SAYS = (
    "Q6 capacities: paged_capacity(64, 16, [1, 1, 1, 1, 1]) is 5, expected 4: count blocks, not tokens: a block "
    "belongs to one sequence"
)


def paged_capacity(kv_tokens, block_size, lens):
    used = 0
    for i, length in enumerate(lens):
        used += length
        if used > kv_tokens:
            return i
    return len(lens)
