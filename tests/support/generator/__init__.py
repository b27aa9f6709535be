"""Plans random calls, plays them over a bad network against a server that runs, and compares the record with the plan."""
