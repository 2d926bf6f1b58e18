"""The command `lienthong`: one module for each group of subcommands. Heavy imports stand inside the commands."""
