"""Memory that processes share, and how it comes to them: used by locks, shared data and queues."""
