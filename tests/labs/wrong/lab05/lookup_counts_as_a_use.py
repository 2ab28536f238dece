"""lookup moves what it finds to the end of the line: asking changes the order of reuse."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q4 least recently freed first: B was freed before A, then somebody looked B up: A keeps {} blocks"


class PrefixBlockPool(PrefixBlockPool):
    def lookup(self, token_ids, salt=""):
        found = super().lookup(token_ids, salt)
        for block in reversed(found):
            if block in self.free_blocks:
                self.free_blocks.move_to_end(block)
        return found
