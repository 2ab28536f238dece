"""Keeps all from the first byte on that is no character yet."""

LEFT = 80
SAYS = "Q2 broken bytes: b'\\xff' is never a character: push(b'abc') behind it must show 'abc', got ''"


class StreamDecoder:
    def __init__(self):
        self.held = b""

    def push(self, piece):
        self.held += piece
        text = self.held
        while text:
            try:
                shown = text.decode()
            except UnicodeDecodeError:
                text = text[:-1]
                continue
            self.held = self.held[len(text) :]
            return shown
        return ""

    def flush(self):
        return self.held.decode(errors="replace")
