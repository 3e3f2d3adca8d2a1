"""Fr-HUB: keeps scans, then acknowledges them; delivers reports to the nodes they belong to."""
