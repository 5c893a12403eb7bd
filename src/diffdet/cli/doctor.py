"""`diffdet doctor`: what this installation can do."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, and nothing else.")
def doctor(as_json: bool) -> None:
    """Versions, devices, threads, memory, and what each extra enables."""
    from diffdet.cli.options import print_json
    from diffdet.runs.doctor import examine

    findings = examine()
    if as_json:
        print_json(findings)
        return
    rows: list[list[str]]
    for title in ("versions", "machine"):
        click.echo(title)
        rows = [[name, str(value)] for name, value in findings[title].items()]
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            click.echo(f"  {name.ljust(width)}   {value}")
    click.echo("devices")
    for device in findings["devices"]:
        click.echo(f"  {device['name']}   {device['description']}")
    click.echo("extras")
    rows = [["extra", "state", "what for"]]
    for extra in findings["extras"]:
        state = "ready" if not extra["missing"] else f"missing {', '.join(extra['missing'])}"
        rows.append([extra["name"], state, extra["enables"]])
    widths = [max(len(row[k]) for row in rows) for k in range(2)]
    for row in rows:
        click.echo(f"  {row[0].ljust(widths[0])}   {row[1].ljust(widths[1])}   {row[2]}")
    if findings["advice"]:
        click.echo("advice")
        for line in findings["advice"]:
            click.echo(f"  {line}")
