"""Divides by the float16 scale instead of the float32 one."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = (
    "Q2 bytes: Q8_0, normal values: {} of 13600 bytes differ: you divide by the scale after rounding it to float16;"
    " llama.cpp divides by the float32 scale and stores the float16 one"
)


class Q8_0(Q8_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        d = (np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)).astype("<f2")
        scale = d.astype(np.float32)
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
        scaled = blocks * inverse
        codes = np.trunc(scaled)
        codes += np.sign(scaled) * (np.abs(scaled - codes) >= 0.5)
        return np.hstack([d.view(np.uint8), codes.astype(np.int8).view(np.uint8)])
