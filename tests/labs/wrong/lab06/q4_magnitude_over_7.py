"""Symmetric: |max| / 7."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = (
    "Q3 bytes: Q4_0, normal values: {} of 7200 bytes differ: the range is -8..7 and the scale is max / -8, not "
    "|max| / 7"
)


class Q4_0(Q4_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(7)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.minimum(np.trunc(blocks * inverse + np.float32(8.5)), 15).astype(np.uint8)
        packed = codes[:, :16] | codes[:, 16:] << 4
        return np.hstack([d.astype("<f2").view(np.uint8), packed])
