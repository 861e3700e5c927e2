"""Tell what a training came to on one page that opens offline."""

from tlcourse.reports.page import write_report

__all__ = ["write_report"]
