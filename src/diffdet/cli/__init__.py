"""The command line. `diffdet.cli.main` is the entry point; nothing here loads torch before a command needs it."""
