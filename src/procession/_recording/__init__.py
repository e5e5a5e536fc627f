"""The recording: an append-only file of events that a SIGKILL of anybody cannot spoil."""
