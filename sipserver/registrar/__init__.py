"""What a REGISTER does to the bindings of an address (RFC 3261 §10.3), in named phases.

Sans-IO: look-ups and updates are asked for as effects. Where bindings are kept is ``location``'s business.
"""
