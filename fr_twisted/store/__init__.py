"""Everything durable; the only package that imports txmongo."""
