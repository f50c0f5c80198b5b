"""Exports one function in many forms, by many exporters, so that graphs can be compared that are known to be equal."""

from graphcheck.exporting.catalogue import Variant, catalogue
from graphcheck.exporting.manifest import Exported, Failure, Manifest, read_manifest
from graphcheck.exporting.run import available, export, export_variants, select

__all__ = [
    "Exported",
    "Failure",
    "Manifest",
    "Variant",
    "available",
    "catalogue",
    "export",
    "export_variants",
    "read_manifest",
    "select",
]
