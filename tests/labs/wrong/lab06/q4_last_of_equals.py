"""The last of equal magnitudes decides the sign."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = "Q3 edges: Q4_0, grid values: {} of 3600 bytes differ: of equal magnitudes the first one gives the sign"


class Q4_0(Q4_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        place = 31 - np.abs(blocks[:, ::-1]).argmax(axis=1)[:, None]
        d = np.take_along_axis(blocks, place, axis=1) / np.float32(-8)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.minimum(np.trunc(blocks * inverse + np.float32(8.5)), 15).astype(np.uint8)
        packed = codes[:, :16] | codes[:, 16:] << 4
        return np.hstack([d.astype("<f2").view(np.uint8), packed])
