"""Counts the weights alone."""

LEFT = 85
SAYS = (
    "Q5 operations and bytes: 100 new tokens after 0, weights of 269 MB: {}the KV cache is missing: keys and values "
    "are read and written"
)


def forward_bytes(cfg, num_new_tokens, num_computed_tokens, weight_bytes, bytes_per_element=2):
    return weight_bytes
