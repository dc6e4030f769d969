"""The command line: one module per command, thin. Nothing heavy is imported before a command needs it."""
