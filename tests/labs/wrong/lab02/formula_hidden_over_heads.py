"""head_dim derived from hidden_size."""

LEFT = 90
SAYS = "Q4 other models: {}wrong for a model whose head_dim is not hidden_size / num_heads: read cfg.head_dim"


def kv_bytes(num_tokens, cfg, bytes_per_element=2):
    head_dim = cfg.hidden_size // cfg.num_heads
    return 2 * cfg.num_layers * cfg.num_kv_heads * head_dim * bytes_per_element * num_tokens
