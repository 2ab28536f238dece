"""d = max / 128: +128 wraps to -128."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q2 bytes: Q8_0, normal values: {} of 13600 bytes differ: the largest weight maps to 127, not 128"


class Q8_0(Q8_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(128)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        scaled = blocks * inverse
        codes = np.trunc(scaled)
        codes += np.sign(scaled) * (np.abs(scaled - codes) >= 0.5)
        return np.hstack([d.astype("<f2").view(np.uint8), codes.astype(np.int32).astype(np.int8).view(np.uint8)])
