"""Fr-PACS: takes brain MRI in, sends it to Fr-HUB, puts reports where people look."""
