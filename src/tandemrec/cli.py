"""`tandem`: verbs only. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tandemrec import __version__
from tandemrec.errors import InputError

if TYPE_CHECKING:
    from tandemrec.experiment.store import StageEvent

app = typer.Typer(
    name="tandem",
    help="Turn interaction logs with item texts into recommenders, and see whether a language model earns its cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes_app = typer.Typer(help="Recipes that ship with the package.", no_args_is_help=True)
data_app = typer.Typer(help="Data sets: known sources, downloads, cleaning and splits.", no_args_is_help=True)
llm_app = typer.Typer(help="Language models.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")
app.add_typer(data_app, name="data")
app.add_typer(llm_app, name="llm")

console = Console(quiet=os.environ.get("RANK", "0") != "0")  # of several processes only the first one talks

RecipeArgument = Annotated[str, typer.Argument(help="Path of a YAML file, or the name of a bundled recipe.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the recipe: a.b=c (repeatable).", metavar="KEY=VALUE"),
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Artifact store; default $TANDEMREC_STORE or the cache directory.")
]
PriceOption = Annotated[
    float | None,
    typer.Option(min=0, max=1e9, help="Price of an hour of the machine, or of the device that is planned for."),
]
RunArgument = Annotated[Path, typer.Argument(help="Directory of a finished run.")]


def main() -> None:
    """Entry point: bad input ends with one sentence and exit code 2."""
    try:
        app()
    except InputError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options of the bare command."""
    if version:
        console.print(f"tandemrec {__version__}")
        raise typer.Exit


@app.command("run")
def run_recipe(
    recipe: RecipeArgument,
    set_: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="Output directory; default runs/NAME.")] = None,
    store: StoreOption = None,
) -> None:
    """Run a recipe: data, split, models, leaderboard. Run again, it continues where it stopped."""
    from tandemrec.experiment.recipe import load_recipe
    from tandemrec.experiment.run import run
    from tandemrec.training import part

    finished = run(load_recipe(recipe, set_ or ()), out, store=store, listen=_tell)
    part()
    _show(finished.results)
    console.print(
        f"\nWritten to {finished.path}: results.json, report.md, report.tex, per_user.parquet, run_card.json, "
        "recipe.yaml"
    )
    console.print(f"Report, for a browser: {(finished.path / 'report.html').resolve()}", soft_wrap=True)


@app.command("plan")
def plan_recipe(
    recipe: Annotated[str | None, typer.Argument(help="Path of a YAML file, or the name of a bundled recipe.")] = None,
    set_: SetOption = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, or an accelerator such as h100, a100, 4090; default: the one at hand.")
    ] = None,
    price: PriceOption = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="First measure the rates of the device at hand, and keep them."),
    ] = False,
    store: StoreOption = None,
) -> None:
    """Foretell time, tokens, memory and money of every stage of a run; nothing is trained, nothing is written."""
    import json

    from tandemrec.experiment.devices import calibrate as measure
    from tandemrec.experiment.devices import find_device
    from tandemrec.experiment.plan import plan
    from tandemrec.experiment.recipe import load_recipe
    from tandemrec.report.plan import plan_notes, plan_table, rates_line

    if recipe is None and not calibrate:
        raise InputError("`tandem plan` needs a recipe, or --calibrate")
    chosen = find_device(device)
    if calibrate:
        measured = measure()
        chosen = find_device(device)
        if not json_:
            console.print(rates_line(measured.model_dump()), highlight=False, markup=False)
    if recipe is None:
        return
    found = plan(load_recipe(recipe, set_ or ()), chosen, price=price, store=store)
    if json_:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    console.print(plan_table(found))
    for note in plan_notes(found):
        console.print(note, markup=False, highlight=False, soft_wrap=True)


@app.command("select")
def select_examples(
    recipe: RecipeArgument,
    set_: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="Output directory; default selections/NAME.")] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Train the surrogate on random subsets to check influence.")
    ] = False,
    plots: Annotated[bool, typer.Option("--plots", help="Draw the selection as SVG files (extra 'plots').")] = False,
    store: StoreOption = None,
) -> None:
    """Choose the training examples worth fine-tuning on, by every selector of a recipe's `selection` part."""
    from tandemrec.experiment.recipe import load_recipe
    from tandemrec.experiment.select import select
    from tandemrec.report.selection import selection_tables

    asked = load_recipe(recipe, set_ or ())
    out = out or Path("selections") / asked.name
    results = select(asked, out, validate=validate, store=store, listen=_tell)
    for table in selection_tables(results):
        console.print(table)
    if plots:
        from tandemrec.report.selection_plots import write_selection_plots

        drawn = write_selection_plots(out, results)
        console.print(f"Written to {out}: {', '.join(path.name for path in drawn)}", markup=False)


@app.command("tune")
def tune_model(
    recipe: RecipeArgument,
    set_: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="Output directory; default tunings/NAME.")] = None,
    store: StoreOption = None,
) -> None:
    """Search the settings of one model on validation, by a recipe's `tune` part (`--set tune.model=NAME` will do)."""
    from tandemrec.experiment.recipe import load_recipe
    from tandemrec.experiment.tune import tune
    from tandemrec.report.tuning import trial_line, tuning_table

    done = tune(
        load_recipe(recipe, set_ or ()),
        out,
        store=store,
        listen=_tell,
        tell=lambda trial, config: console.print(
            trial_line(trial, config.trials), highlight=False, markup=False, soft_wrap=True
        ),
    )
    console.print(tuning_table(done.results))
    console.print(done.results["protocol"], markup=False)
    console.print(
        f"\nWritten to {done.path}: best.yaml (for `tandem run`), trials.parquet, trials.md, trials.svg, tuning.json"
    )


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of finished runs; those of other training seeds are pooled.")
    ],
    out: Annotated[Path, typer.Option(help="Output directory.")] = Path("comparison"),
    metric: Annotated[str | None, typer.Option(help="What pairs are tested on; default: the runs' headline.")] = None,
    resamples: Annotated[int, typer.Option(min=200, help="Bootstrap draws and permutations.")] = 10_000,
    price: PriceOption = None,
) -> None:
    """Compare every pair of systems of finished runs: differences, intervals, corrected p-values."""
    from tandemrec.evaluation.comparison import ComparisonConfig
    from tandemrec.experiment.compare import compare as compare_runs
    from tandemrec.report.comparison import answer, comparison_tables

    results = compare_runs(runs, out, metric=metric, price=price, config=ComparisonConfig(resamples=resamples))
    for table in comparison_tables(results):
        console.print(table)
    console.print(answer(results), markup=False)
    console.print(f"\nWritten to {out}: compare.html, compare.json, compare.md, compare.tex")


@app.command("reproduce")
def reproduce_experiment(
    name: Annotated[str, typer.Argument(help="LIST, or an experiment such as soft/table-2-game.")],
    scale: Annotated[str, typer.Option(help="full (the paper's), scaled (a laptop's) or smoke (seconds).")] = "scaled",
    seeds: Annotated[str | None, typer.Option(help="Training seeds, such as 42,43; default: the experiment's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Output directory; default reproductions/NAME-SCALE.")] = None,
    recipe_only: Annotated[bool, typer.Option("--recipe-only", help="Write the recipe and run nothing.")] = False,
    store: StoreOption = None,
) -> None:
    """Repeat a table or figure of a paper: its figures beside ours, and which of its claims hold. Goes on if killed."""
    from tandemrec.experiment.papers import described, read_scale, read_seeds
    from tandemrec.experiment.reproduce import default_out, reproduce, write_recipe
    from tandemrec.report.reproduction import experiment_table, sentence, verdict
    from tandemrec.training import part

    if name.lower() == "list":
        console.print(experiment_table(described()))
        return
    size, given, out = read_scale(scale), read_seeds(seeds), out or default_out(name, scale)
    if recipe_only:
        console.print(f"Written to {write_recipe(name, size, out)}", soft_wrap=True)
        return
    results = reproduce(name, size, seeds=given, out=out, store=store, listen=_tell)
    part()
    if results:
        for claim in results["claims"]:
            console.print(sentence(claim, results), markup=False)
        console.print(verdict(results), markup=False)
        console.print(f"\nWritten to {out}: reproduction.html, reproduction.md, reproduction.json, compare.*")


@app.command()
def report(
    run: RunArgument,
    price: PriceOption = None,
) -> None:
    """Write a finished run's report.html (costs in money) and report.tex, its tables for LaTeX, again."""
    from tandemrec.experiment.run import Run, write_report

    console.print(f"Written to {write_report(Run.open(run), price)}")


@app.command()
def evaluate(
    run: RunArgument,
    set_: SetOption = None,
    store: StoreOption = None,
) -> None:
    """Judge a finished run again with other settings (`--set cutoffs=[1,10,50]`); nothing is trained."""
    from tandemrec.experiment.run import Run, judge_again

    _show(judge_again(Run.open(run), set_ or (), store=store, listen=_tell))


@app.command()
def recommend(
    run: RunArgument,
    user: Annotated[str, typer.Option(help="Original id of the user.")],
    k: Annotated[int, typer.Option(min=1, help="Length of the list.")] = 10,
    system: Annotated[str | None, typer.Option(help="Name on the leaderboard; default: its first row.")] = None,
) -> None:
    """Recommend to a user of a finished run: the user's history, then titles and scores."""
    from tandemrec.experiment.run import Run
    from tandemrec.report.recommendation import recommendation_table

    history, ranking = Run.open(run).recommend(user, k, system)
    console.print(recommendation_table(user, history, ranking))


@app.command()
def export(
    run: RunArgument,
    system: Annotated[str, typer.Argument(help="Name of a system that writes titles, such as BIGRec.")],
    to: Annotated[Path, typer.Argument(help="Folder for train.jsonl, valid.jsonl, dataset_info.json; must not exist.")],
) -> None:
    """Write what a system learned from as prompt/completion JSONL, which TRL and LLaMA-Factory read."""
    from tandemrec.experiment.export import export_training_set
    from tandemrec.experiment.run import Run

    rows = export_training_set(Run.open(run), system, to)
    console.print(f"Written to {to}: {rows['train']:,} training and {rows['valid']:,} validation rows")


@app.command()
def doctor() -> None:
    """Say what is installed, which devices are seen, where data and models are looked for, and what is missing."""
    from tandemrec.doctor import diagnose

    console.print(diagnose())


@recipes_app.command("list")
def recipes_list() -> None:
    """Names of the bundled recipes, each with its first line."""
    from tandemrec.experiment.bundled import read_recipe, recipe_names

    for name in recipe_names():
        console.print(f"{name:24}{read_recipe(name).splitlines()[0].lstrip('# ')}", highlight=False, markup=False)


@recipes_app.command("show")
def recipes_show(name: str) -> None:
    """Print a bundled recipe."""
    from tandemrec.experiment.bundled import read_recipe

    typer.echo(read_recipe(name))


@recipes_app.command("copy")
def recipes_copy(name: str, to: Annotated[Path, typer.Argument(help="File to write; must not exist.")]) -> None:
    """Copy a bundled recipe to start one's own from."""
    from tandemrec.experiment.bundled import read_recipe

    text = read_recipe(name)
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{to} exists already; nothing was written") from None
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}") from None


@data_app.command("list")
def data_list() -> None:
    """Known public sources, their licence, and which of them are here."""
    from tandemrec.report.known_data import known_table

    console.print(known_table())


@data_app.command("get")
def data_get(
    name: str, to: Annotated[Path | None, typer.Option(help="Folder; default $TANDEMREC_DATA.")] = None
) -> None:
    """Download a known public source: resumable, checksum verified, licence shown."""
    from tandemrec.data.download import download
    from tandemrec.data.known import known_source
    from tandemrec.data.locations import data_root

    source = known_source(name)
    console.print(f"{source.title}. {source.licence}", markup=False)
    console.print(f"Ready in {download(source, to or data_root())}", markup=False)


@data_app.command("show")
def data_show(recipe: RecipeArgument, set_: SetOption = None, store: StoreOption = None) -> None:
    """What a recipe's data are: counts, what cleaning dropped and why, the split and its leak check."""
    from tandemrec.experiment.recipe import load_recipe
    from tandemrec.experiment.run import prepare
    from tandemrec.report.data_tables import data_tables

    for table in data_tables(*prepare(load_recipe(recipe, set_ or ()), store=store, listen=_tell)):
        console.print(table)


@data_app.command("export")
def data_export(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Argument(help="Folder for NAME.inter, NAME.item and NAME.user.")],
    set_: SetOption = None,
    store: StoreOption = None,
) -> None:
    """Write a recipe's cleaned data as RecBole atomic files."""
    from tandemrec.data.sources.recbole import write_atomic
    from tandemrec.experiment.recipe import load_recipe
    from tandemrec.experiment.run import prepare

    split, _ = prepare(load_recipe(recipe, set_ or ()), store=store, listen=_tell)
    write_atomic(split.dataset, to)
    console.print(f"Written to {to}")


@llm_app.command("build")
def llm_build(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Argument(help="Folder for the finished model; must not exist.")],
    text: Annotated[list[Path] | None, typer.Option(help="Further text files (.txt, .jsonl, .gz; repeatable).")] = None,
    millions: Annotated[float | None, typer.Option(help="Size in millions of parameters, about 1 to 60.")] = None,
    set_: SetOption = None,
    store: StoreOption = None,
) -> None:
    """Train a small Llama with its own tokenizer on the texts of a recipe's catalogue and further text files."""
    from tandemrec.experiment.build_llm import build_llm
    from tandemrec.experiment.recipe import load_recipe

    report = build_llm(load_recipe(recipe, set_ or ()), to, texts=text or [], millions=millions, store=store)
    console.print(f"{to}: {report.epochs} epochs in {report.seconds:.0f} s, best validation {report.best_value}")


@llm_app.command("parity")
def llm_parity(
    url: Annotated[str, typer.Argument(help="Address of a vLLM server, such as http://localhost:8000.")],
    model: Annotated[str, typer.Argument(help="Folder or hub id of the model that it serves.")],
    served: Annotated[str | None, typer.Option(help="Name under which it serves it; default: the only one.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="PEFT folder on top of the model.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts to compare, from the bundled sample.")] = 16,
    beams: Annotated[int, typer.Option(min=1, help="Beams, beside greedy search.")] = 4,
    tolerance: Annotated[float, typer.Option(help="Log-probabilities this near count as tied.")] = 0.01,
) -> None:
    """Whether a vLLM server writes what our own search writes with the same model; exit code 1 if it does not."""
    from tandemrec.llm.model import LanguageModel
    from tandemrec.llm.vllm import Server, parity, sample_prompts

    server = Server.connect(url, served)
    lm = LanguageModel.load(model, adapter=adapter)
    found = parity(lm, server, sample_prompts(lm, prompts), beams=beams, tolerance=tolerance)
    for row in found:
        console.print(
            f"{row.beams} beam{'s' * (row.beams > 1)}: {row.equal} of {row.prompts} answers equal, {row.tied} tied; "
            f"largest gap {row.worst_gap:.4f}, largest error of a log-probability {row.worst_error:.4f}"
        )
    if not all(row.holds for row in found):
        raise typer.Exit(1)


def _tell(event: StageEvent) -> None:
    verb = {"made": "[green]made[/green]", "found": "[cyan]found[/cyan]", "damaged": "[red]damaged[/red]"}[event.what]
    seconds = f" {event.seconds:8.1f} s" if event.what == "made" else " " * 11
    console.print(f"{verb:>22}{seconds}  {event.stage}", highlight=False)
    if event.detail:
        console.print(event.detail, markup=False, soft_wrap=True)


def _show(results: dict[str, Any]) -> None:
    from tandemrec.report.leaderboard import terminal_table
    from tandemrec.report.outputs import output_tables
    from tandemrec.report.segments import segment_tables

    for table in (*output_tables(results), *segment_tables(results)):
        console.print(table)
    console.print(terminal_table(results))
    console.print(results["evaluation"]["protocol"], markup=False)
