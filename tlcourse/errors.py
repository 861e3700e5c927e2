"""What every message about unusable input says: where, what was expected, what came, what to do."""

from __future__ import annotations


class Unusable(ValueError):
    """Input that cannot be used.

    Args:
        where: The file, folder or part that is at fault.
        expected: What should be there.
        found: What is there.
        remedy: What to do, if that is not plain.

    >>> print(Unusable("scans/7.png", "an image", "a text", "Leave it out"))
    scans/7.png: expected an image; found a text. Leave it out
    """

    def __init__(self, where: object, expected: str, found: str, remedy: str = "") -> None:
        super().__init__(where, expected, found, remedy)
        self.where, self.expected, self.found, self.remedy = where, expected, found, remedy

    def __str__(self) -> str:
        remedy = f". {self.remedy}" if self.remedy else ""
        return f"{self.where}: expected {self.expected}; found {self.found}{remedy}"
