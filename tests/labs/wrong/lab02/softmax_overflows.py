"""No row maximum."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q2 chunks and other shapes: nan for large scores: subtract the row maximum before exp()"


def attention(q, k, v):
    num_new, num_heads, head_dim = q.shape
    total, num_kv_heads, _ = k.shape
    k, v = (np.repeat(x, num_heads // num_kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / head_dim**0.5
    weights = np.exp(np.where(np.arange(total) <= np.arange(total - num_new, total)[:, None], scores, -np.inf))
    return np.einsum("hij,jhd->ihd", weights / weights.sum(axis=-1, keepdims=True), v)
