"""Forgets the values."""

LEFT = 75
SAYS = "Q4 two known models: 11,520 bytes for 1 token of SmolLM2-135M, expected 23,040: a key AND a value: times 2"


def kv_bytes(num_tokens, cfg, bytes_per_element=2):
    return cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * bytes_per_element * num_tokens
