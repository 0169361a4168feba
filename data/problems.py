"""What is wrong with a dataset, said so that a user can act: cause, path and remedy in one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from splat.core import DataError

Severity = Literal["error", "warning", "fact"]


class DatasetError(DataError):
    """A problem that stops the use of a dataset or of one of its files.

    Attributes:
        code: short stable name of the kind of problem, e.g. "image-missing".
        path: the file or folder.
        cause, remedy: what is wrong; what to do.
    """

    def __init__(self, code: str, path: Path | str, cause: str, remedy: str, detail: str = "") -> None:
        self.code, self.path, self.cause, self.remedy = code, Path(path), cause, remedy
        super().__init__(f"{path}: {cause}; {remedy}" + (f"\n{detail}" if detail else ""))


@dataclass(frozen=True)
class Finding:
    """One thing that a check or a reader noticed.

    Attributes:
        severity: "error" stops a run, "warning" costs quality or data, "fact" is good to know.
        code: short stable name of the kind of finding.
        message: what was found and where.
        remedy: what to do about it; empty for facts.
    """

    severity: Severity
    code: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


@dataclass
class Report:
    """Collects findings while a dataset is read.

    A strict report raises the first error; a lenient one keeps it, and the reader leaves out what it concerns.
    """

    strict: bool = True
    findings: list[Finding] = field(default_factory=list)

    def error(self, error: DatasetError) -> None:
        if self.strict:
            raise error
        self.findings.append(Finding("error", error.code, f"{error.path}: {error.cause}", error.remedy))

    def warn(self, code: str, message: str, remedy: str) -> None:
        self.findings.append(Finding("warning", code, message, remedy))

    def note(self, code: str, message: str) -> None:
        self.findings.append(Finding("fact", code, message))

    def lines(self, severity: Severity) -> list[str]:
        return [str(finding) for finding in self.findings if finding.severity == severity]


def some(names: list[str], limit: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
