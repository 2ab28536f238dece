"""Computed in float64, with other last bits."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q2 edges: Q8_0, halves8 values: {} of 10200 bytes differ: computed in float64: other last bits; keep every "
    "step in float32"
)


class Q8_0(Q8_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        blocks = blocks.astype(np.float64)
        d = np.abs(blocks).max(axis=1, keepdims=True) / 127
        inverse = np.divide(1, d, out=np.zeros_like(d), where=d != 0)
        scaled = blocks * inverse
        codes = np.trunc(scaled)
        codes += np.sign(scaled) * (np.abs(scaled - codes) >= 0.5)
        return np.hstack([d.astype("<f2").view(np.uint8), codes.astype(np.int8).view(np.uint8)])
