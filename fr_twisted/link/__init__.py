"""The acknowledged line link ``fr-link/1``: it knows nothing of scans, MongoDB or DICOM (docs/wire.md)."""
