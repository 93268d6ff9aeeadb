"""Media state of the active node on its standby: a Sender there, a Receiver here, frames between them. Sans-IO.

Frames carry session keys: whoever carries them authenticates and encrypts, or goes over a wire of his own.
"""
