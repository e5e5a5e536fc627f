"""What `procession.synchronize` offers, an object a module; nobody else may look in here.

Each object is a few words of a region (`_shared.memory`), which the C core reads and changes; it
pickles as the same words, whatever takes it to whichever process.
"""
