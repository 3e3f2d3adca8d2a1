"""Fr carries brain scans from the PACS to a quantitative report and back, and loses none."""

__version__ = "0.1.0"
