"""x / d instead of x * (1 / d)."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q2 edges: Q8_0, halves8 values: {} of 10200 bytes differ: x / d rounds once, llama.cpp multiplies by the "
    "float32 inverse 1 / d: other last bits"
)


class Q8_0(Q8_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        scaled = np.divide(blocks, d, out=np.zeros_like(blocks), where=d != 0)
        codes = np.trunc(scaled)
        codes += np.sign(scaled) * (np.abs(scaled - codes) >= 0.5)
        return np.hstack([d.astype("<f2").view(np.uint8), codes.astype(np.int8).view(np.uint8)])
