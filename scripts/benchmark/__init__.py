"""What ``scripts/bench`` runs: the same signalling on this server and on Kamailio, one after the other.

Here lives what starts the systems, what drives them, what splits our cost, and what shows it. Nothing of this is part
of the package, and nothing here measures by a clock what it can measure in processor time.
"""
