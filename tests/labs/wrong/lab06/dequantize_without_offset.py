"""Nibbles 0..15 not shifted by 8."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = (
    "Q4 round trip: Q4_0: worst error is {} of the block's largest weight, expected < 0.1257: code 8 is zero: a "
    "weight is d * (q - 8)"
)


class Q4_0(Q4_0):
    def dequantize(self, blocks):
        d = blocks[:, :2].copy().view("<f2").astype(np.float32)
        return (d * np.hstack([blocks[:, 2:] & 15, blocks[:, 2:] >> 4])).reshape(-1)
