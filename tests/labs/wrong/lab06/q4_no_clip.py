"""16 overflows into the neighbour's nibble."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = (
    "Q3 bytes: Q4_0, normal values: {} of 7200 bytes differ: x / d + 8.5 can reach 16: limit to 15 before packing, "
    "or it spills into the neighbour's nibble"
)


class Q4_0(Q4_0):
    def quantize(self, x):
        blocks = x.reshape(-1, 32)
        place = np.abs(blocks).argmax(axis=1)[:, None]
        d = np.take_along_axis(blocks, place, axis=1) / np.float32(-8)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.trunc(blocks * inverse + np.float32(8.5)).astype(np.uint8)
        packed = codes[:, :16] | codes[:, 16:] << 4
        return np.hstack([d.astype("<f2").view(np.uint8), packed])
