"""Every option once: its type, default, spelling, help, parser and check. An option is one field of one group.

The command line (:mod:`graphcheck.command_line`), the keywords of :func:`graphcheck.compare` and the tables of the
reference are made of these fields. Nothing heavy is imported here: the kernel reads :class:`Options` too.
"""

from graphcheck.options.blaming import Blaming
from graphcheck.options.calling import check_names, keywords, keywords_behind_form
from graphcheck.options.commands import Guarding, ProvedOptions, RewriteOptions, Rewriting, Sweeping, Told, Twice
from graphcheck.options.comparing import LEVELS, AssertOptions, File, ModuleOptions, Options, Required
from graphcheck.options.fields import OUT, PANELS, Group, Option, about, checked, default_of, option
from graphcheck.options.values import by_output

__all__ = [
    "LEVELS", "OUT", "PANELS", "AssertOptions", "Blaming", "File", "Group", "Guarding", "ModuleOptions", "Option", "Options",
    "ProvedOptions", "Required", "RewriteOptions", "Rewriting", "Sweeping", "Told", "Twice", "about", "by_output",
    "check_names", "checked", "default_of", "keywords", "keywords_behind_form", "option",
]
