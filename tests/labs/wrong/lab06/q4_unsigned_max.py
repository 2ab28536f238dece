"""|max| / -8: the sign of the largest weight is lost."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = (
    "Q3 bytes: Q4_0, normal values: {} of 7200 bytes differ: the scale is the SIGNED largest-magnitude weight / -8:"
    " its sign matters"
)


class Q4_0(Q4_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(-8)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.minimum(np.trunc(blocks * inverse + np.float32(8.5)), 15).astype(np.uint8)
        packed = codes[:, :16] | codes[:, 16:] << 4
        return np.hstack([d.astype("<f2").view(np.uint8), packed])
