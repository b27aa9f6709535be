"""People: subscribers, their encrypted credentials, and the party ids that stand for them in records.

The only folder that knows passwords, and only until their HA1 is sealed. No calls and no bindings in here.
"""
