"""A comparison of systems in words, for the terminal, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from rich.table import Table
from rich.text import Text

from tandemrec.evaluation.comparison import OVER_SEEDS
from tandemrec.report.cost import cost_markdown
from tandemrec.report.leaderboard import cell, decimal, headline_metrics, table_of

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}
LATEX |= {sign: f"${sign}$" for sign in "<>"}


def answer(results: Mapping[str, Any]) -> str:
    """The best system, whether its lead could be chance, and what the test set can tell apart."""
    rows, metric = results["leaderboard"], results["evaluation"]["headline"]
    best = rows[0]
    found = f"{best['system']} has the best {metric}, {best['metrics'][metric]['mean']:.4f}"
    if len(rows) == 1:
        return f"{found}; there is nothing to compare it with."
    tied = [row["system"] for row in rows[1:] if not is_certain(results, best["system"], row["system"])]
    tests = "one pair" if len(results["pairs"]) == 1 else f"{len(results['pairs'])} pairs"
    if not tied:
        lead = f"better than each of the other {len(rows) - 1}" if len(rows) > 2 else f"better than {rows[1]['system']}"
        text = f"{found}, significantly {lead} (Holm's correction for {tests})."
    else:
        text = f"{found}, but its lead over {_listed(tied)} may be chance (Holm's correction for {tests})."
    limit, power = results["resolvable"], results["settings"]["power"]
    if all(row.get("repetitions", 1) == 1 for row in rows):
        text += " Every system was trained once, so nothing is said about other trainings."
    return (
        f"{text} With these {results['users']:,} users a true difference of {limit['one_test']:.4f} is found in "
        f"{power:.0%} of cases by one test, {limit['all_tests']:.4f} among all pairs (median over pairs)."
    )


def is_certain(results: Mapping[str, Any], one: str, other: str) -> bool:
    """Whether the two differ by more than chance after the correction."""
    return bool(pair_of(results, one, other)["p_holm"] < 1 - results["settings"]["level"])


def pair_of(results: Mapping[str, Any], one: str, other: str) -> dict[str, Any]:
    """The test of `one` against `other`, its difference being one − other."""
    for pair in results["pairs"]:
        if (pair["system"], pair["other"]) == (one, other):
            return dict(pair)
        if (pair["system"], pair["other"]) == (other, one):
            turned = {"difference": -pair["difference"], "low": -pair["high"], "high": -pair["low"]}
            return dict(pair) | {"system": one, "other": other} | turned
    raise KeyError(f"{one} and {other} were not compared")


def comparison_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Leaderboard with intervals and the difference from its first row; then every pair."""
    yield _rich(f"{results['data']['name']}: {judged_on(results)}", *board_table(results), {"± users", "± seeds"})
    if len(results["leaderboard"]) > 2:
        yield _rich(f"every pair, {results['evaluation']['headline']}", *pair_table(results), {"p", "seeds"})


def comparison_markdown(results: Mapping[str, Any]) -> str:
    """The answer, the leaderboard, all metrics, every pair, and what was compared how."""
    parts = [
        "# Comparison",
        answer(results),
        table_of(*board_table(results)),
        "## All metrics",
        table_of(*metrics_table(results)),
        f"Mean ± standard error over {_over(results)}.",
        "## Every pair" if results["pairs"] else "",
        table_of(*pair_table(results)) if results["pairs"] else "",
        cost_markdown(results, results["costs"], results["price"]),
        "## How",
        how(results),
        table_of(*runs_table(results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_latex(results: Mapping[str, Any]) -> str:
    """The leaderboard with all metrics and the table of pairs, for `booktabs`; the best mean of a column is bold."""
    metrics, lower = headline_metrics(results), results["evaluation"]["task"] == "rating"
    board, best = results["leaderboard"], min if lower else max
    top = {name: best(row["metrics"][name]["mean"] for row in board) for name in metrics}
    rows = []
    for row in board:
        figures = []
        for name in metrics:
            figure = row["metrics"][name]
            mean = f"{figure['mean']:.4f}"
            mean = f"\\mathbf{{{mean}}}" if figure["mean"] == top[name] else mean
            figures.append(f"${mean}_{{\\pm {figure['standard_error']:.4f}}}$")
        rows.append([_escaped(row["system"]), *figures])
    tables = [_latex(["system", *map(_escaped, metrics)], rows)]
    if results["pairs"]:
        header, pairs = pair_table(results)
        tables.append(_latex([*map(_escaped, header)], [[*map(_escaped, pair)] for pair in pairs]))
    return f"% {judged_on(results)}; mean and standard error over {_over(results)}\n" + "\n".join(tables)


def how(results: Mapping[str, Any]) -> str:
    """The tests in words."""
    settings, tests = results["settings"], {pair["test"] for pair in results["pairs"]}
    named = {
        "permutation over users": "two-sided permutation tests that exchange two systems within users",
        OVER_SEEDS: "two-sided t-tests over users and training seeds, both random; how much trainings vary is "
        "known from those of all systems (moderated variances)",
    }
    told = " and ".join(named.get(test, test) for test in sorted(tests))
    tested = f" p-values: {told}, corrected by Holm." if tests else ""
    return (
        f"Split: {results['split']['protocol']}. {results['evaluation']['protocol']} Intervals: "
        f"{settings['level']:.0%} bootstrap over {_over(results)}, {settings['resamples']:,} draws.{tested}"
    )


def judged_on(results: Mapping[str, Any]) -> str:
    """The part, and how many users it has."""
    return f"{results['evaluation']['part']} part, {results['users']:,} users"


def board_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and a row a system: the metric, its interval, the difference from the first row; of repeated trainings
    also how many there are, and the errors over users and over seeds apart.
    """
    board, metric = results["leaderboard"], results["evaluation"]["headline"]
    repeated = _repeated(results) > 1
    header = ["system", metric, f"{results['settings']['level']:.0%} interval"]
    rows = []
    for row in board:
        figure = row["metrics"][metric]
        cells = [row["system"], cell(figure), f"{decimal(row['low'])} to {decimal(row['high'])}"]
        if repeated:
            seeds = f"{figure['seed_error']:.4f}" if row["repetitions"] > 1 else ""
            cells += [str(row["repetitions"]), f"{figure['user_error']:.4f}", seeds]
        pair = None if row is board[0] else pair_of(results, row["system"], board[0]["system"])
        rows.append([*cells, *(("", "") if pair is None else (decimal(pair["difference"], "+"), _p(pair["p_holm"])))])
    return [*header, *(("seeds", "± users", "± seeds") if repeated else ()), "from first", "p (Holm)"], rows


def metrics_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and a row a system: mean and standard error of every metric."""
    metrics = headline_metrics(results)
    rows = [[row["system"], *(cell(row["metrics"][name]) for name in metrics)] for row in results["leaderboard"]]
    return ["system", *metrics], rows


def pair_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and every pair, the better system first, in the order of the leaderboard."""
    level = f"{results['settings']['level']:.0%} interval"
    names = [row["system"] for row in results["leaderboard"]]
    rows = []
    for one, other in combinations(names, 2):
        pair = pair_of(results, one, other)
        difference, low, high = (decimal(pair[key], "+") for key in ("difference", "low", "high"))
        found = _p(pair["p_value"]), _p(pair["p_holm"]), str(pair["repetitions"])
        rows.append([one, other, difference, f"{low} to {high}", *found])
    return ["system", "against", "difference", level, "p", "p (Holm)", "seeds"], rows


def runs_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and a row a compared run."""
    keys = ["path", "name", "seed", "training_seed", "machine"]
    return ["run", "name", "seed", "training seed", "machine"], [
        [str(run[key]) for key in keys] for run in results["runs"]
    ]


def _over(results: Mapping[str, Any]) -> str:
    return f"users and up to {_repeated(results)} training seeds" if _repeated(results) > 1 else "users"


def _repeated(results: Mapping[str, Any]) -> int:
    return max(int(row["repetitions"]) for row in results["leaderboard"])


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _rich(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], dropped: set[str]) -> Table:
    """As Markdown, but for columns and blanks that a terminal has no room for."""
    table = Table(title=title)
    kept = [place for place, name in enumerate(header) if name not in dropped]
    for name in (header[place] for place in kept):
        text = name in {"system", "against"}
        table.add_column(name, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[place].replace(" ± ", " ±").replace(" to ", "…")) for place in kept))
    return table


def _latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = "l" * sum(name in {"system", "against"} for name in header)
    lines = [" & ".join(row) + r" \\" for row in (header, *rows)]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{columns}{'r' * (len(header) - len(columns))}}}\n{body}\n\\end{{tabular}}\n"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)
