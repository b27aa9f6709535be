"""Figures fit to publish: cells of few parties hidden, what would give them away hidden with them, the rest rounded.

Pure functions over counted facts but for ``facts`` (reads calls.db) and ``ledger`` (remembers what was shared); files
are written by the command line.
"""
