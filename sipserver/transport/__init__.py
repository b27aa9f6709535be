"""Sockets: UDP and TCP listeners, connections, names to addresses, and what the kernel knows of routes.

Bytes go in and out with the flow they belong to. No decision about a message is taken here.
"""
