"""First half in the high nibble."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = (
    "Q3 bytes: Q4_0, normal values: {} of 7200 bytes differ: weight j belongs in the low nibble, weight j + 16 in "
    "the high one"
)


class Q4_0(Q4_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        place = np.abs(blocks).argmax(axis=1)[:, None]
        d = np.take_along_axis(blocks, place, axis=1) / np.float32(-8)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.minimum(np.trunc(blocks * inverse + np.float32(8.5)), 15).astype(np.uint8)
        packed = codes[:, :16] << 4 | codes[:, 16:]
        return np.hstack([d.astype("<f2").view(np.uint8), packed])
