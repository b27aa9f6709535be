"""What analysts ask of ``calls.db``: documented views, figures by the book, reports, and made-up stores to try them on.

Everything here reads one store that somebody may be writing; only ``sample`` writes, and only a store of its own.
"""
