"""The ``sipserver`` command: one module for each group of commands.

Reads arguments, calls the other folders, prints for people, JSON or CSV. No rule of the server lives here.
"""
