"""Takes hidden_size for the width of all heads."""

LEFT = 90
SAYS = "Q5 additive: "


def forward_flops(cfg, num_new_tokens, num_computed_tokens):
    width, kv_width = cfg.hidden_size, cfg.hidden_size * cfg.num_kv_heads // cfg.num_heads
    layer_weights = cfg.hidden_size * (2 * width + 2 * kv_width + 3 * cfg.intermediate_size)
    num_pairs = num_new_tokens * num_computed_tokens + num_new_tokens * (num_new_tokens + 1) // 2
    matrices = 2 * cfg.num_layers * layer_weights * num_new_tokens
    return matrices + 4 * cfg.num_layers * width * num_pairs + 2 * cfg.vocab_size * cfg.hidden_size
