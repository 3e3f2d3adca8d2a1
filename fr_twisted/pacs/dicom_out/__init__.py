"""Results as DICOM objects in the study that the scan came from, sent to archives. docs/dicom.md describes them.

`headers` keeps what must be known of a sent series; `report` reads a report's folder; `sr`, `seg` and `pictures` make
objects, `objects` all of them; `scu` sends; `jobs` remembers over a restart what is to be sent; `service` runs it.
"""
