"""Counts every sequence that would fit, also after one that did not."""

LEFT = 90
SAYS = (
    "Q6 capacities: paged_capacity(512, 16, [100, 480, 8]) is 2, expected 1: in order of arrival: stop at the first "
    "that does not fit"
)


def paged_capacity(kv_tokens, block_size, lens):
    num_free, count = kv_tokens // block_size, 0
    for length in lens:
        if (needed := -(-length // block_size)) <= num_free:
            num_free, count = num_free - needed, count + 1
    return count
