"""Every query sees every key."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q2 equal to a slow loop: attention of 5 new tokens, 0 computed before: later tokens are seen: the causal mask "
    "is missing (largest difference"
)


def attention(q, k, v):
    _, num_heads, head_dim = q.shape
    num_kv_heads = k.shape[1]
    k, v = (np.repeat(x, num_heads // num_kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / head_dim**0.5
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hij,jhd->ihd", weights / weights.sum(axis=-1, keepdims=True), v)
