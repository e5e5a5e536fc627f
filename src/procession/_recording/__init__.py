"""The recording: an append-only file of events that a SIGKILL of anybody cannot spoil.

One event is one line of JSON, appended by one write(2). Only the first line has to be there: it
says what the file is and in which version.
"""
