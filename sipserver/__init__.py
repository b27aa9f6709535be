"""sipserver: a SIP registrar and proxy for video addresses that keeps a truthful record of every call.

Each folder is one layer; ``tests/test_house.py`` holds the rules on which may import which.
"""

__version__ = "0.1.0"
