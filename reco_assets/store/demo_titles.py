"""Titles and bodies of the demo's posts, put together from words of their topic."""

from collections.abc import Iterable
from typing import Final

TOPICS: Final[dict[str, tuple[str, ...]]] = {
    "backups": ("incremental backups", "restore drills", "cold archives", "off-site copies", "snapshots"),
    "databases": ("partial indexes", "slow queries", "schema migrations", "read replicas", "vacuum settings"),
    "testing": ("flaky tests", "property tests", "golden files", "test doubles", "mutation tests"),
    "networks": ("dropped packets", "home routers", "mesh networks", "name servers", "load balancers"),
    "gardening": ("raised beds", "tomato seedlings", "compost heaps", "climbing roses", "balcony herbs"),
    "cycling": ("gravel bikes", "winter tyres", "night rides", "bike commutes", "mountain passes"),
    "baking": ("sourdough starters", "rye loaves", "puff pastries", "long ferments", "cast-iron pans"),
    "photography": ("wide lenses", "film cameras", "long exposures", "street portraits", "contact sheets"),
    "astronomy": ("meteor showers", "star charts", "small telescopes", "lunar craters", "dark skies"),
    "chess": ("rook endgames", "quiet moves", "opening traps", "blitz games", "pawn storms"),
    "woodworking": ("hand planes", "dovetail joints", "workbenches", "oil finishes", "offcuts"),
    "hiking": ("ridge walks", "light tents", "old maps", "hut tours", "river crossings"),
    "coffee": ("light roasts", "hand grinders", "espresso shots", "pour-overs", "moka pots"),
    "music": ("minor chords", "odd metres", "tape loops", "choir rehearsals", "cheap synthesizers"),
    "languages": ("loan words", "tone languages", "flash cards", "dialects", "silent letters"),
    "sleep": ("short naps", "evening walks", "blue lights", "early mornings", "sleep diaries"),
    "budgeting": ("index funds", "grocery bills", "rainy-day funds", "old loans", "shared accounts"),
    "maps": ("contour lines", "map projections", "transit diagrams", "street names", "aerial surveys"),
    "sewing": ("linen shirts", "invisible mends", "paper patterns", "old machines", "deep pockets"),
    "birds": ("garden birds", "night herons", "spring migrations", "nest boxes", "dawn choruses"),
}
"""Topic → what its posts are about, as plural phrases that fit every opening."""

_OPENINGS: Final = (
    "Why {} deserve a second look",
    "A slow introduction to {}",
    "What {} taught us about patience",
    "The hidden cost of {}",
    "How we learned to trust {}",
    "Stop overthinking {}",
    "Seven small lessons from {}",
    "In praise of {}",
    "What nobody tells you about {}",
    "Getting started with {} on a small budget",
    "Are {} worth the trouble",
    "A year with {}",
)
_ANGLES: Final = (
    "",
    ": field notes",
    ": what went wrong",
    ": a checklist",
    ": questions from readers",
    ", revisited",
    ": the numbers",
    ": a beginner's view",
    ": the long version",
)
_BODIES: Final = (
    "We tried {} for three months and wrote down what changed. Most of it was not what we expected.",
    "Everybody has an opinion about {}. Here is what held up, what did not, and where to start.",
    "A short piece about {}, the mistakes that cost us most, and the two habits that stayed.",
    "Three readers asked about {}. These are the answers, with the evidence we could find.",
)


def compose(topics: Iterable[int], draws: Iterable[float]) -> tuple[list[str], list[str]]:
    """Titles and bodies of posts.

    Args:
        topics: position in `TOPICS` of each post.
        draws: one uniform number in [0, 1) for each post, which picks among the wordings.

    Example:
        >>> compose([0], [0.0])[0]
        ['Why incremental backups deserve a second look']
    """
    titles, bodies = [], []
    subjects_of = list(TOPICS.values())
    for topic, draw in zip(topics, draws, strict=True):
        choice = int(draw * (1 << 30))
        choice, angle = divmod(choice, len(_ANGLES))
        choice, opening = divmod(choice, len(_OPENINGS))
        choice, body = divmod(choice, len(_BODIES))
        subjects = subjects_of[topic]
        subject = subjects[choice % len(subjects)]
        titles.append(_OPENINGS[opening].format(subject) + _ANGLES[angle])
        bodies.append(_BODIES[body].format(subject))
    return titles, bodies
