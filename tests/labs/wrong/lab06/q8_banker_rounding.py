"""np.rint: halves to even."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q2 edges: Q8_0, halves8 values: {} of 10200 bytes differ: halves are rounded to even (np.round, np.rint); C's "
    "roundf rounds halves away from zero"
)


class Q8_0(Q8_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.rint(blocks * inverse).astype(np.int8)
        return np.hstack([d.astype("<f2").view(np.uint8), codes.view(np.uint8)])
