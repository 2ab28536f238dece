"""Pictures of what an engine does: the KV cache, the batching timeline, tokens; live while it runs, frozen at the end.

Reading order: shows (what a notebook calls), story (a trace as what pictures need), figures and narration (its numbers
and sentences), live (how it grows), then the modules in static/, which draw it; twin (what stays in a saved notebook).
"""
