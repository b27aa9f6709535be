"""The SIP protocol itself, without input or output: text, transactions, digest, session descriptions.

No sockets, clocks, randomness, logging or databases here; nothing of ours outside this folder is imported.
Bytes, times and tokens come in as arguments, and effects go out as return values.
"""
