"""Subtracts 8 from unsigned nibbles: code 7 becomes 255, not -1."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = (
    "Q4 round trip: Q4_0: worst error is {} of the block's largest weight, expected < 0.1257: the nibbles are "
    "unsigned: make them float32 or int8 before you subtract 8"
)


class Q4_0(Q4_0):
    def dequantize(self, blocks):
        d = blocks[:, :2].copy().view("<f2").astype(np.float32)
        codes = np.hstack([blocks[:, 2:] & 15, blocks[:, 2:] >> 4]) - 8
        return (d * codes).reshape(-1)
