"""The command ``fr``: what a person does at a terminal, without a daemon."""
