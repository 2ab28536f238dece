"""Counts multiplications, no additions."""

LEFT = 75
SAYS = (
    "Q5 operations and bytes: decode after 100 tokens: {}a multiplication and an addition for each weight are 2 "
    "operations"
)


def forward_flops(cfg, num_new_tokens, num_computed_tokens):
    width, kv_width = cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
    layer_weights = cfg.hidden_size * (2 * width + 2 * kv_width + 3 * cfg.intermediate_size)
    num_pairs = num_new_tokens * num_computed_tokens + num_new_tokens * (num_new_tokens + 1) // 2
    logits = cfg.vocab_size * cfg.hidden_size
    return cfg.num_layers * (layer_weights * num_new_tokens + 2 * width * num_pairs) + logits
