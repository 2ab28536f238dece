"""Scale in the wrong byte order."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = (
    "Q2 bytes: Q8_0, normal values: {} of 13600 bytes differ: the two bytes of the scale are the wrong way round: "
    "little endian, the low byte first"
)


class Q8_0(Q8_0):
    def quantize(self, x):
        made = super().quantize(x)
        return np.hstack([made[:, [1, 0]], made[:, 2:]])
