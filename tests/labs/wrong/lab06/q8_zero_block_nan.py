"""No case for a block of zeros: nan."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q2 edges: Q8_0, edge values: divide by zero encountered in divide: a block of zeros has scale 0; its inverse "
    "must be 0, not inf"
)


class Q8_0(Q8_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        scaled = blocks * (1 / d)
        codes = np.trunc(scaled)
        codes += np.sign(scaled) * (np.abs(scaled - codes) >= 0.5)
        return np.hstack([d.astype("<f2").view(np.uint8), codes.astype(np.int8).view(np.uint8)])
