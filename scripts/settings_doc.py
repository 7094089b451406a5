"""Rewrite the tables in docs/settings.md from the settings themselves."""

import sys
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from reco_assets.service_settings import ServiceSettings
from reco_assets.settings import ENV_PREFIX, ModelSettings, Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"


def _range(field: Any) -> str:
    parts = []
    for constraint in field.metadata:
        match constraint:
            case Ge(ge=low):
                parts.append(f"≥ {low:,}")
            case Gt(gt=low):
                parts.append(f"> {low:,}")
            case Le(le=high):
                parts.append(f"≤ {high:,}")
            case Lt(lt=high):
                parts.append(f"< {high:,}")
            case MinLen(min_length=n):
                parts.append(f"{n} characters or more")
            case MaxLen(max_length=n):
                parts.append(f"{n} characters at most")
            case _ if pattern := getattr(constraint, "pattern", None):
                parts.append(f"`{pattern}`")
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        parts.append(", ".join(f"`{choice}`" for choice in choices))
    return "; ".join(parts).replace("|", "\\|")


def _default(field: Any) -> str:
    if field.default_factory is not None:
        value = field.default_factory()
        return ",".join(f"{k}={v:g}" for k, v in value.items()) if isinstance(value, dict) else "`.reco`"
    if isinstance(field.default, tuple):
        return f"`{','.join(field.default)}`" if field.default else ""
    return "" if field.default in (None, "") else f"`{field.default}`"


def table(names: list[str]) -> str:
    """A Markdown table of those settings."""
    rows = ["| Setting | Default | Range | Meaning |", "| --- | --- | --- | --- |"]
    for name in names:
        field = Settings.model_fields[name]
        rows.append(
            f"| `{ENV_PREFIX}{name.upper()}` | {_default(field)} | {_range(field)} | {field.description} |"
        )
    return "\n".join(rows)


def page() -> str:
    """The whole page, with the tables made anew."""
    text = PAGE.read_text()
    model = list(ModelSettings.model_fields)
    service = list(ServiceSettings.model_fields)
    others = [name for name in Settings.model_fields if name not in {*model, *service}]
    for marker, names in (("model", model), ("service", service), ("deployment", others)):
        start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
        head, rest = text.split(start)
        text = head + start + "\n" + table(names) + "\n\n" + end + rest.split(end)[1]
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.name} written\n")
