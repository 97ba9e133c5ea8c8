"""Templates of the pages that we write and serve: each folder's own beside `page.html`, the frame
and the colours that all of them share. Needs jinja2.
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SHARED = Path(__file__).resolve().parent / "templates"


def page_templates(folders: Sequence[Path]) -> Environment:
    """The templates in `folders`. What is put into them is escaped; what is missing is an error."""
    return Environment(
        loader=FileSystemLoader([*folders, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
