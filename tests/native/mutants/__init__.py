"""Faults of the C core, each of which must make a test fail: ``python -m tests.native.mutants``.

A test that no fault can fail proves nothing. Each fault of faults.toml is put into a copy of the
checkout, alone; where the test needs it the extension is built there; and the named test is run. It
must pass without a fault and fail with it.
"""
