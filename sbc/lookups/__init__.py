"""What routes look up without holding up the worker: HTTP, Redis, databases. One kind of I/O, on the worker's loop."""
