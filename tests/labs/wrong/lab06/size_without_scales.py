"""4 and 8 bits a weight: scales forgotten."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q5 size: model_bytes of [(49152, 576) Q8_0, (576, 576) Q4_0, (576,) F32] is 28479744 bytes, expected 30269952:"
    " 18 bytes per 32 weights (4.5 bits), 34 for Q8_0 (8.5 bits), not 4 and 8"
)


def model_bytes(tensors):
    bits = {"F32": 32, "F16": 16, "Q8_0": 8, "Q4_0": 4}
    return sum(math.prod(shape) * bits[name] // 8 for shape, name in tensors)
