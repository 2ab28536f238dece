"""The right text, at flush()."""

LEFT = 70
SAYS = "Q2 held back: of 'a😀b' in pieces {}'a' is whole and must be shown at once"


class StreamDecoder:
    def __init__(self):
        self.held = b""

    def push(self, piece):
        self.held += piece
        return ""

    def flush(self):
        return self.held.decode(errors="replace")
