"""The record of calls: events, the pure machine that makes rows of them, the schema and who writes and reads it.

Values of ``sip`` and the stores may be used here; addresses of people may not get in, only party ids.
"""
