"""Weights 2j and 2j+1 share a byte."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = (
    "Q3 bytes: Q4_0, normal values: {} of 7200 bytes differ: byte j holds weights j (low nibble) and j + 16 (high "
    "nibble), not neighbours 2j and 2j + 1"
)


class Q4_0(Q4_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        place = np.abs(blocks).argmax(axis=1)[:, None]
        d = np.take_along_axis(blocks, place, axis=1) / np.float32(-8)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.minimum(np.trunc(blocks * inverse + np.float32(8.5)), 15).astype(np.uint8)
        packed = codes[:, ::2] | codes[:, 1::2] << 4
        return np.hstack([d.astype("<f2").view(np.uint8), packed])
