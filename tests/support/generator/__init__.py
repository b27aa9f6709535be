"""Plans random calls, plays them over a bad network against a real server, and compares the record with the plan."""
