"""Scales the array of the engine."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q2 equal to a slow loop: attention of 5 new tokens, 0 computed before: it changed q, which belongs to the "
    "engine: work on a copy"
)


def attention(q, k, v):
    num_new, num_heads, head_dim = q.shape
    total, num_kv_heads, _ = k.shape
    q /= head_dim**0.5
    k, v = (np.repeat(x, num_heads // num_kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k)
    scores = np.where(np.arange(total) <= np.arange(total - num_new, total)[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hij,jhd->ihd", weights / weights.sum(axis=-1, keepdims=True), v)
