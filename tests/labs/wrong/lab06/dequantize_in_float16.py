"""Multiplies in float16: close, and not what llama.cpp computes."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = "Q4 exact values: Q8_0.dequantize: weight {}multiply in float32, not in float16: convert the scale first"


class Q8_0(Q8_0):
    def dequantize(self, blocks):
        d = blocks[:, :2].copy().view("<f2")
        return (d * blocks[:, 2:].copy().view(np.int8)).astype(np.float32).reshape(-1)
