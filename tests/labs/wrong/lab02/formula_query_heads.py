"""Counts query heads."""

LEFT = 75
SAYS = (
    "Q4 two known models: 69,120 bytes for 1 token of SmolLM2-135M, expected 23,040: you count 9 query heads; K and "
    "V are stored for the 3 KV heads only (GQA)"
)


def kv_bytes(num_tokens, cfg, bytes_per_element=2):
    return 2 * cfg.num_layers * cfg.num_heads * cfg.head_dim * bytes_per_element * num_tokens
