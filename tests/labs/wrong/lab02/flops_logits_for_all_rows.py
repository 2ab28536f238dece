"""The logits of every prompt token are counted."""

LEFT = 75
SAYS = (
    "Q5 operations and bytes: prefill of 100 tokens: 27.25 GFLOP, expected 21.64 GFLOP: logits are computed for the "
    "last token only"
)


def forward_flops(cfg, num_new_tokens, num_computed_tokens):
    width, kv_width = cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
    layer_weights = cfg.hidden_size * (2 * width + 2 * kv_width + 3 * cfg.intermediate_size)
    num_pairs = num_new_tokens * num_computed_tokens + num_new_tokens * (num_new_tokens + 1) // 2
    attention = 4 * cfg.num_layers * width * num_pairs
    logits = 2 * cfg.vocab_size * cfg.hidden_size * num_new_tokens
    return 2 * cfg.num_layers * layer_weights * num_new_tokens + attention + logits
