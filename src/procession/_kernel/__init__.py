"""Linux as typed Python, without policy. Used by every room above; uses only `_native`."""
