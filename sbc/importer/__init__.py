"""Brings the configuration of another SIP server over: what it says as a configuration and routes, and a report of what
could not be said here. Nothing is left out silently."""
