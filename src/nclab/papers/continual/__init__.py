"""Shallow and deep forgetting over tasks, with replay (arXiv 2512.07400)."""
