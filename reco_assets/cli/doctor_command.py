"""`reco doctor`: what is wrong with the database, and what mends it."""

import json
from datetime import UTC, datetime

import click

from reco_assets.settings import Settings

_MARKS = {
    "ok": ("ok", "green"),
    "note": ("note", "cyan"),
    "warning": ("warn", "yellow"),
    "error": ("ERROR", "red"),
}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="All findings as JSON, for programs.")
@click.option("--quiet", is_flag=True, help="Leave out what is in order.")
def command(as_json: bool, quiet: bool) -> None:
    """Check the app's database before or after it was migrated, without changing anything.

    Looks at the connection, tables, columns, id types, indexes, rights, views, bad rows and what is
    published. Each finding says what it means, and the command or SQL that mends it.

    \b
    Levels:
      ok     as it should be
      note   works, and worth knowing
      warn   works, but rows are left out or something is slow
      ERROR  does not work as it is; the exit code is 1

    \b
    Examples:
      RECO_DATABASE_URL=postgresql://reco@db/app reco doctor
      reco doctor --json | jq '.findings[] | select(.level == "error")'
    """
    from reco_assets.local.stack import local_stack
    from reco_assets.store.doctor import examine, has_errors

    with local_stack(Settings.load(), with_dagster=False) as settings:
        findings = examine(settings, now=datetime.now(UTC))
    failed = has_errors(findings)
    shown = [finding for finding in findings if not (quiet and finding.level == "ok")]
    if as_json:
        document = {"ok": not failed, "findings": [finding.to_dict() for finding in shown]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for finding in shown:
            mark, colour = _MARKS[finding.level]
            click.echo(f"{click.style(f'{mark:5}', fg=colour)}  {finding.subject}: {finding.message}")
            if finding.fix:
                click.echo(f"       → {finding.fix}")
        counts = {level: sum(finding.level == level for finding in findings) for level in _MARKS}
        click.echo(", ".join(f"{n} {level}" for level, n in counts.items()) + ".")
    if failed:
        raise SystemExit(1)
