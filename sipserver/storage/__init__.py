"""Databases as files: opening them, moving them to the current schema, and the one writer that each has.

Knows nothing of what the rows mean, and imports nothing else of ours.
"""
