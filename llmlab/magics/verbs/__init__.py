"""What each verb does: one public call of llmlab, and what is shown of its result."""
