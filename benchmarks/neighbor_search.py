"""Everybody's neighbours and lists: ours and others in turns, and how far from the machine's limit."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.agreement import TOLERANCE, Agreement, compare
from benchmarks.contenders.registry import BOUND, OURS, OWN_SETTINGS, Entrant
from benchmarks.feeds import workload as make_workload
from benchmarks.processes import ContenderFailed, ContenderProcess, started
from benchmarks.report import Report, Row, Table
from benchmarks.rounds import SLOW_ROUNDS, Runs, Say, ratio, take_turns
from benchmarks.sizes import Size
from benchmarks.workload import N_NEIGHBORS, N_POSTS, SAMPLE, Workload
from reco_assets.recommender.threads import available_cores

_CALLS = 2_000
"""Of one user each, for the percentiles."""
_STEPS = (("neighbours", "neighbors"), ("lists", "lists"))


@dataclass
class Gathered:
    """What is shown together once all sizes are done."""

    data: list[Row] = field(default_factory=list)
    bounds: list[Row] = field(default_factory=list)
    threads: list[Row] = field(default_factory=list)
    one_user: list[Row] = field(default_factory=list)
    runs: list[tuple[Workload, list[Runs]]] = field(default_factory=list)


def run(
    report: Report,
    sizes: Sequence[Size],
    feeds: Sequence[str],
    entrants: Sequence[Entrant],
    *,
    rounds: int,
    threads: int,
    directory: Path,
    say: Say,
) -> None:
    """Measure each feed at each size and add the tables.

    Args:
        report: for the tables.
        sizes: from small to large.
        feeds: names of `feeds.FEEDS`.
        entrants: ours first; who is missing is left out.
        rounds: that count.
        threads: for every contender.
        directory: for the arrays.
        say: told what is going on.
    """
    gathered = Gathered()
    for feed in feeds:
        for size in sizes:
            say(f"Neighbour search, feed {feed}, size {size.name}")
            place = directory / f"{feed}-{size.name}"
            workload = make_workload(feed, size)
            workload.save(place)
            gathered.data.append(workload.description())
            _measure(report, gathered, workload, place, entrants, rounds, threads, say)
    _add_gathered(report, gathered, threads)


def _measure(
    report: Report,
    gathered: Gathered,
    workload: Workload,
    place: Path,
    entrants: Sequence[Entrant],
    rounds: int,
    threads: int,
    say: Say,
) -> None:
    with ExitStack() as stack:
        processes = []
        left_out = {}
        for entrant in (*entrants, BOUND):
            if reason := entrant.missing():
                left_out[entrant.name] = reason
                say(f"left out: {entrant.name}, {reason}")
                continue
            try:
                process = started(entrant, place, threads)
            except ContenderFailed as error:
                left_out[entrant.name] = "failed"
                say(f"left out: {error}")
                continue
            stack.callback(process.stop)
            processes.append(process)
        runs = take_turns(processes, rounds, say)
        finished = {run.name for run in runs}
        left_out |= {p.entrant.name: "failed" for p in processes if p.entrant.name not in finished}
        results = {}
        for process in processes:
            entrant = process.entrant
            if entrant.work != OWN_SETTINGS and entrant != BOUND and entrant.name in finished:
                results[entrant.name] = place / entrant.path.replace(":", ".")
                results[entrant.name].mkdir()
                process.ask("save", directory=str(results[entrant.name]))
            if process.entrant != OURS:
                process.stop()
        ours = processes[0]
        gathered.one_user += _one_user(workload, ours)
        gathered.threads += _thread_scaling(workload, ours, rounds)
    bound = next((each for each in runs if each.name == BOUND.name), None)
    runs = [each for each in runs if each.name != BOUND.name]
    if bound is not None:
        gathered.bounds.append(_bound_row(workload, bound, runs[0]))
    agreement = compare(workload, results[OURS.name], results)
    works = {entrant.name: entrant.work for entrant in entrants}
    _add_comparison(report, workload, runs, works, left_out, agreement, threads)
    gathered.runs.append((workload, runs))


def _add_comparison(
    report: Report,
    workload: Workload,
    runs: Sequence[Runs],
    works: dict[str, str],
    left_out: dict[str, str],
    agreement: dict[str, Agreement],
    threads: int,
) -> None:
    ours = runs[0]
    name = f"{workload.feed}/{workload.size}"
    what = (
        f"feed {workload.feed}, size {workload.size}: {workload.n_users:,} users × "
        f"{workload.weights.shape[1]:,} posts, {workload.weights.nnz:,} pairs, "
        f"{workload.multiply_adds():,} multiply-adds"
    )
    sampled = [run.name for run in runs if run.details["users"] < workload.n_users]
    notes = [
        f"For every user the {N_NEIGHBORS} nearest by cosine, then the best {N_POSTS} unseen posts of their "
        f"votes; {threads} threads each. Medians over the rounds; fastest and slowest are of the total."
    ]
    if left_out:
        reasons = (f"{name} ({reason})" for name, reason in left_out.items())
        notes.append(f"Left out here: {'; '.join(reasons)}.")
    if sampled:
        notes.append(
            f"{' and '.join(sampled)} served {SAMPLE:,} users; their times are for all, in proportion, and "
            f"they take part in {SLOW_ROUNDS} rounds at most."
        )
    report.add(
        Table.of(
            f"seconds/{name}",
            f"Neighbour search, {what}",
            [
                {
                    "contender": run.name,
                    "work": works[run.name],
                    "users served": run.details["users"],
                    "neighbours s": run.median("neighbors"),
                    "lists s": run.median("lists"),
                    "total s": run.median(),
                    "fastest s": min(run.totals().values()),
                    "slowest s": max(run.totals().values()),
                    "rounds": len(run.seconds),
                }
                for run in runs
            ],
            notes=notes,
        )
    )
    nothing = Agreement(None, None, None, None)
    rows: list[Row] = []
    for run in runs:
        found = agreement.get(run.name, nothing)
        rows.append(
            {
                "contender": run.name,
                "work": works[run.name],
                "× neighbours": ratio(run, ours, "neighbors"),
                "× lists": ratio(run, ours, "lists"),
                "× total": ratio(run, ours),
                "× memory": run.peak_mb / ours.peak_mb,
                "peak MB": run.peak_mb,
                "above data MB": run.peak_mb - run.resident_mb,
                "same neighbours %": found.same_neighbors,
                "as good %": found.good_neighbors,
                "same posts %": found.same_lists,
                "posts as good %": found.good_lists,
            }
        )
    report.add(
        Table.of(
            f"beside-ours/{name}",
            f"Beside ours, feed {workload.feed}, size {workload.size}",
            rows,
            ratios=("× neighbours", "× lists", "× total", "× memory"),
            notes=[
                "×: their figure by ours, the median of the rounds' ratios: above 1 we are faster or "
                "smaller. Peak: of the process; above data: above what it held once everything was imported "
                "and loaded.",
                f"Results on {len(workload.sample()):,} users. Same: equal ids, of ours. As good: exact "
                "similarity or score at least that of the last entry of the exact answer − "
                f"{TOLERANCE:g}.",
            ],
        )
    )


def _bound_row(workload: Workload, bound: Runs, ours: Runs) -> Row:
    fastest = min(bound.steps, key=bound.median)
    return {
        "feed": workload.feed,
        "size": workload.size,
        "multiply-adds": workload.multiply_adds(),
        **{f"{kind} s": bound.median(kind) for kind in bound.steps},
        "our neighbours s": ours.median("neighbors"),
        "bound / ours": median(
            seconds[fastest] / ours.seconds[number]["neighbors"] for number, seconds in bound.seconds.items()
        ),
    }


def _thread_scaling(workload: Workload, ours: ContenderProcess, rounds: int) -> list[Row]:
    """Ours on 1, 2, 4 … threads and on all cores, in turns."""
    cores = available_cores()
    counts = sorted({*(2**n for n in range(cores.bit_length()) if 2**n <= cores), cores})
    seconds: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            seconds[count].append(ours.ask("run_on", threads=count)["seconds"])
    rows: list[Row] = []
    for count in counts:
        totals = [sum(each.values()) for each in seconds[count]]
        rows.append(
            {
                "feed": workload.feed,
                "size": workload.size,
                "threads": count,
                **{f"{label} s": median(e[step] for e in seconds[count]) for label, step in _STEPS},
                "total s": median(totals),
                "× one thread": median(
                    sum(one.values()) / total for one, total in zip(seconds[1], totals, strict=True)
                ),
            }
        )
    return rows


def _one_user(workload: Workload, ours: ContenderProcess) -> list[Row]:
    """Latencies of single users, one call after the other, in the process that holds the model."""
    answer = ours.ask("one_user", calls=min(_CALLS, 20 * workload.n_users))
    return [
        {"feed": workload.feed, "size": workload.size, "what": what, **figures}
        for what, figures in answer.items()
    ]


def _growth(gathered: Gathered) -> list[Row]:
    rows: list[Row] = []
    for feed in dict.fromkeys(workload.feed for workload, _ in gathered.runs):
        measured = [(workload, runs) for workload, runs in gathered.runs if workload.feed == feed]
        if len(measured) < 2:
            continue
        (small, before), (large, after) = measured[0], measured[-1]
        work = math.log(large.multiply_adds() / small.multiply_adds())
        users = math.log(large.n_users / small.n_users)
        for run in after:
            first = next((each for each in before if each.name == run.name), None)
            if first is None:
                continue
            time = math.log(run.median() / first.median())
            search = math.log(run.median("neighbors") / first.median("neighbors"))
            rows.append(
                {
                    "contender": run.name,
                    "feed": feed,
                    "from, to": f"{small.size}, {large.size}",
                    "neighbours: by multiply-adds": search / work,
                    "by users": search / users,
                    "total: by multiply-adds": time / work,
                    "total: by users": time / users,
                    "memory: by users": math.log(run.peak_mb / first.peak_mb) / users,
                }
            )
    return rows


def _add_gathered(report: Report, gathered: Gathered, threads: int) -> None:
    report.add(Table.of("data", "The feeds", gathered.data))
    if gathered.bounds:
        report.add(
            Table.of(
                "bound",
                "The scatter-add bound of this machine",
                gathered.bounds,
                notes=[
                    "The random additions of the full product and nothing else, on the same threads, with "
                    f"the same queue ({threads} threads). Bound / ours takes the faster type. Ours "
                    "includes all of `fit`; where it uses the symmetry of the product it makes fewer "
                    "additions than the bound, which counts the full one, so the share can exceed 1.",
                ],
            )
        )
    report.add(
        Table.of(
            "threads", "Ours on more threads", gathered.threads, notes=["In turns; medians of the rounds."]
        )
    )
    if growth := _growth(gathered):
        report.add(
            Table.of(
                "growth",
                "How times grow",
                growth,
                notes=[
                    "Exponents: the logarithm of the ratio of two times by that of the ratio of "
                    "multiply-adds or users. 1 is in proportion."
                ],
            )
        )
    report.add(
        Table.of(
            "one-user",
            "One user at a time, on the fitted model",
            gathered.one_user,
            notes=["One call after the other, in one thread, in the process that holds the model."],
        )
    )
