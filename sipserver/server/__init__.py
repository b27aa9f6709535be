"""The running server: configuration, the driver that carries out effects, and ``app``, which wires everything.

The only folder that brings the layers together. Protocol rules do not belong here.
"""
