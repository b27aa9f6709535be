"""Where the endpoints of an address are now: the Protocol that the server uses, and its implementations.

Storage only. Who may register what is decided in ``registrar``.
"""
