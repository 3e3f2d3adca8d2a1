"""What every unit needs to be run: settings, logs, ordered services, readiness."""
