"""Python loop over blocks: right bytes, too slow."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q5 array speed: Q8_0: 20,000 blocks take {}x the reference: use array operations, no Python loop over blocks"


class Q8_0(Q8_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        return np.vstack([super(type(self), self).quantize(block) for block in blocks])
