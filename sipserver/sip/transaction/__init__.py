"""The four transaction machines of RFC 3261 §17 with RFC 6026, one file each, and the keys that find them.

They take events and return effects. They never send, wait, read a clock or call whoever uses them. A list of
effects has one ``Send`` at most and it comes last, so that nothing is lost where a driver stops at a failed send.
"""
