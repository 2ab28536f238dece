"""What is read, and not what is written."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = (
    "Q5 operations and bytes: 64 new tokens after 1000, {}all weights once + KV of all tokens read + KV of the new ones"
)


def forward_bytes(cfg, num_new_tokens, num_computed_tokens, weight_bytes, bytes_per_element=2):
    return weight_bytes + kv_bytes(num_computed_tokens + num_new_tokens, cfg, bytes_per_element)
