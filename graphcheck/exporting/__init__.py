"""Exports one function in many forms, by many exporters, so that graphs can be compared that are known to be equal."""

from graphcheck.exporting.catalogue import Variant, catalogue
from graphcheck.exporting.manifest import Exported, Failure, Manifest, read_manifest
from graphcheck.exporting.run import available, export, select

__all__ = ["Exported", "Failure", "Manifest", "Variant", "available", "catalogue", "export", "read_manifest", "select"]
