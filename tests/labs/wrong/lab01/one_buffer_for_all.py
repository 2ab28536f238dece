"""The bytes are kept in the class, not in the object."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q2 held back: two answers at once gave {}each decoder keeps bytes of its own, set in __init__"


class StreamDecoder(StreamDecoder):
    shared = codecs.getincrementaldecoder("utf-8")("replace")

    def __init__(self):
        self.decoder = self.shared
