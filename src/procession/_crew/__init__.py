"""What Pool, executor and `map` share: workers, and the dispatch of calls to them.

Promises: every call ends once, with its value, its exception, or the `WorkerDied` of the worker
that had it in hand; a worker's death harms no other call. Used by `pool` and `executor`.
"""
