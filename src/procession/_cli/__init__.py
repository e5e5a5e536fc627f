"""The command. Imports what is below it when it is needed: `run` must not delay its program."""
