"""How a request finds its way: admission, routes, forwarding, forking (RFC 3261 §16).

Sans-IO: imports ``sip`` only. Look-ups, timers and sockets are asked for as effects.
"""
