"""round(x / d) + 8 instead of trunc(x / d + 8.5)."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q3 edges: Q4_0, halves4 values: {} of 5400 bytes differ: round(x / d) + 8 rounds halves to even; llama.cpp "
    "truncates x / d + 8.5"
)


class Q4_0(Q4_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        place = np.abs(blocks).argmax(axis=1)[:, None]
        d = np.take_along_axis(blocks, place, axis=1) / np.float32(-8)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.minimum(np.rint(blocks * inverse) + 8, 15).astype(np.uint8)
        packed = codes[:, :16] | codes[:, 16:] << 4
        return np.hstack([d.astype("<f2").view(np.uint8), packed])
