"""The same work by other hands, for comparison: scripts that run in a virtual environment of their own (`make bench` installs
requirements-bench.txt into .venv-bench), since what their libraries ask for does not fit the project's.

Each is given (database URL, bootstrap, topic, number), does its work on a copy of the first `number` events of intake's log,
and prints one JSON line: {"rate": events a second, "events": n}.
"""
