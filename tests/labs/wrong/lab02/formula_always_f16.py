"""Ignores bytes_per_element."""

LEFT = 75
SAYS = (
    "Q4 two known models: 4,608,000 bytes for 200 tokens of SmolLM2-135M, expected 9,216,000: bytes_per_element is 4 "
    "here"
)


def kv_bytes(num_tokens, cfg, bytes_per_element=2):
    return 4 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * num_tokens
