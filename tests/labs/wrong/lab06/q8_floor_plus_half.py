"""floor(|v| + 0.5): in float32 0.49999997 + 0.5 is 1.0."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q2 edges: Q8_0, halves8 values: {} of 10200 bytes differ: floor(|v| + 0.5) is not roundf in float32 "
    "(0.49999997 + 0.5 gives 1.0): look at the fraction |v - trunc(v)| >= 0.5"
)


class Q8_0(Q8_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        scaled = blocks * inverse
        codes = np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))
        return np.hstack([d.astype("<f2").view(np.uint8), codes.astype(np.int8).view(np.uint8)])
