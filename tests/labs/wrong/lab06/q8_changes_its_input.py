"""Scales the weights in place: the model that was handed over is damaged."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q2 bytes: Q8_0, normal values: quantize changed the weights that it was given: compute on a copy"


class Q8_0(Q8_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        blocks *= np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.trunc(blocks)
        codes += np.sign(blocks) * (np.abs(blocks - codes) >= 0.5)
        return np.hstack([d.astype("<f2").view(np.uint8), codes.astype(np.int8).view(np.uint8)])
