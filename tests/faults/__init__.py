"""Fr under faults: real daemons under load, killed, frozen, cut off and lied to; then looked at from outside.

Nothing here uses Fr's own code of the link or the store: what is checked is read by the harness's own means.
"""
