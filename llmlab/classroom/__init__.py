"""Class mode: one engine for a class. classroom() opens it, `llmlab class` does so in a shell.

It stands on llmlab.serve: the same endpoint, with a token for each student, turns that are shared fairly, quotas, and
the batch to watch: one's own requests whole, everybody else's without text or token ids. This file must not import any
of it: a student's notebook has no server.
"""
