"""`reco recommend`."""

import click


@click.command("recommend")
@click.argument("user", required=False)
@click.option("-n", "n", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many posts.")
@click.option(
    "--voters", default=3, show_default=True, type=click.IntRange(0, 100), help="Neighbours shown per post."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(user: str | None, n: int, voters: int, as_json: bool) -> None:
    """Show the published list of USER and explain it.

    USER is a UUID or the beginning of one, as this command prints it for neighbours.

    For every post: the neighbours whose reactions carried it, how similar they are, what they did and
    when, and the share of popularity. Without USER, takes the one with the most recommendations.

    \b
    reco recommend
    reco recommend 7c0f8a52-93a4-5d0e-8a55-3f1f2c9b7e10 -n 5
    """
    import json

    from reco_assets.cli.explained_list import as_dict, explain_list, print_list
    from reco_assets.local.stack import local_stack
    from reco_assets.settings import Settings

    with local_stack(Settings.load()) as settings:
        explained = explain_list(settings, user, n, voters)
    if as_json:
        click.echo(json.dumps(as_dict(explained), indent=2))
    else:
        print_list(explained)
