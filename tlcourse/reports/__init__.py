"""Put what a training came to on one page."""

from tlcourse.reports.card import model_card
from tlcourse.reports.page import preview, write_report

__all__ = ["model_card", "preview", "write_report"]
