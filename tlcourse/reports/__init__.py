"""Tell what a training came to on one page that opens offline."""

from tlcourse.reports.page import write_report
from tlcourse.reports.preview import preview

__all__ = ["preview", "write_report"]
