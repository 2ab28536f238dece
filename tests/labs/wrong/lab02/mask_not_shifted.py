"""Causal mask of the new tokens only: query i sees keys 0..i."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q2 equal to a slow loop: attention of 1 new tokens, 8 computed before: the causal mask ignores the computed "
    "tokens: query i may see keys 0..(t - n + i) (largest difference"
)


def attention(q, k, v):
    num_new, num_heads, head_dim = q.shape
    total, num_kv_heads, _ = k.shape
    k, v = (np.repeat(x, num_heads // num_kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / head_dim**0.5
    scores = np.where(np.arange(total) <= np.arange(num_new)[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hij,jhd->ihd", weights / weights.sum(axis=-1, keepdims=True), v)
