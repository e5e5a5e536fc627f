"""Our end of the keeper: what stands between `Process.start()` and the start frame."""
