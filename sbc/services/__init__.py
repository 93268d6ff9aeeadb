"""Services of the node beside calls, sans-IO, on the core's transaction layer."""
