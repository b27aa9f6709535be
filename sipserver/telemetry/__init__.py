"""What operators see: structured logs and metrics.

Imports nothing else of ours; others hand it names and values, never credentials.
"""
