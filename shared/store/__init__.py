"""How it survives: the pool, migrations, the owner's log and its outbox, the relay, the inbox."""
