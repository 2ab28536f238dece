"""Reads all weights for each token."""

LEFT = 85
SAYS = (
    "Q5 operations and bytes: 100 new tokens after 0, weights of 269 MB: {}weights are read once a pass, not once a "
    "token"
)


def forward_bytes(cfg, num_new_tokens, num_computed_tokens, weight_bytes, bytes_per_element=2):
    kv_token = 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * bytes_per_element
    return weight_bytes * num_new_tokens + (num_computed_tokens + 2 * num_new_tokens) * kv_token
