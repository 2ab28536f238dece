"""Shows nothing until all that came is whole."""

LEFT = 70
SAYS = "Q2 held back: {}is whole and must be shown at once: hold back only the bytes of the character that is not"


class StreamDecoder:
    def __init__(self):
        self.held = b""

    def push(self, piece):
        self.held += piece
        try:
            text = self.held.decode()
        except UnicodeDecodeError:
            return ""
        self.held = b""
        return text

    def flush(self):
        return self.held.decode(errors="replace")
