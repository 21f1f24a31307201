"""The page that answers what a sweep was run for, `report.html`."""

from hpjax.report.page.source import PageSource, load_source, refusing_damage
from hpjax.report.page.write import PAGE_NAME, create_page, write_page

__all__ = ["PAGE_NAME", "PageSource", "create_page", "load_source", "refusing_damage", "write_page"]
