"""What is no character is left out, and nobody hears of it."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = "Q2 broken bytes: an answer that stops inside a character must end with one � at flush(), got 'ok' + ''"


class StreamDecoder(StreamDecoder):
    def __init__(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")("ignore")
