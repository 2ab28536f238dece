"""Computed in float64: other roundings."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q3 edges: Q4_0, halves4 values: {} of 5400 bytes differ: computed in float64: other last bits; keep every step"
    " in float32"
)


class Q4_0(Q4_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        blocks = blocks.astype(np.float64)
        place = np.abs(blocks).argmax(axis=1)[:, None]
        d = np.take_along_axis(blocks, place, axis=1) / -8
        inverse = np.divide(1, d, out=np.zeros_like(d), where=d != 0)
        codes = np.minimum(np.trunc(blocks * inverse + 8.5), 15).astype(np.uint8)
        packed = codes[:, :16] | codes[:, 16:] << 4
        return np.hstack([d.astype("<f2").view(np.uint8), packed])
