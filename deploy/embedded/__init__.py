"""PostgreSQL and a Kafka-protocol broker for one machine, run from PyPI wheels as our own child processes.

Both are children of the process that starts them: they end with it, also when it is killed with -9, and what an
earlier run left behind is ended before a new one starts. Linux only (process groups, /proc, prctl).
"""
