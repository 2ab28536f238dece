"""KV heads tiled (j % hk) instead of repeated (j // group)."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q2 equal to a slow loop: attention of 5 new tokens, 0 computed before: head j must read KV head j // (num_heads "
    "// num_kv_heads); yours reads j % num_kv_heads (largest difference"
)


def attention(q, k, v):
    num_new, num_heads, head_dim = q.shape
    total, num_kv_heads, _ = k.shape
    k, v = (np.tile(x, (1, num_heads // num_kv_heads, 1)) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / head_dim**0.5
    scores = np.where(np.arange(total) <= np.arange(total - num_new, total)[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hij,jhd->ihd", weights / weights.sum(axis=-1, keepdims=True), v)
