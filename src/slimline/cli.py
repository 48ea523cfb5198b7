"""The commands: demo, optimize, apply, inspect, measure, verify, report."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimline.errors import SlimlineError

if TYPE_CHECKING:
    from slimline.task import Task

EXIT = {"PASS": 0, "FAIL": 3, "CAN'T TELL": 4}
BAD_INPUT, STOPPED = 2, 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make a trained network small and fast, and prove that it still does its job.",
)

Source = Annotated[
    str,
    typer.Argument(
        help="JOB.py with model() and task(); a .onnx, .keras, .tflite, .pb or .slim file; the folder of a SavedModel "
        "or of transformers"
    ),
]
Data = Annotated[
    Path | None, typer.Option(help="npz with one array per input name, and optionally labels; in place of task()")
]
ScoreName = Annotated[
    str,
    typer.Option(
        help="accuracy, agreement, cosine or relative; when left out, accuracy where there are labels, else what fits "
        "the network's first output"
    ),
]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="run the code in a Keras file's Lambda layers")]
Synthetic = Annotated[
    bool,
    typer.Option("--synthetic", help="learn from inputs made from the network itself; the data only judge"),
]
Tracker = Annotated[str, typer.Option(help="tensorboard, or another tracker that Accelerate knows; for training")]
MaxDrop = Annotated[str, typer.Option(help="largest loss of the score: 1% or 0.01")]
Minimize = Annotated[str, typer.Option(help="latency or size")]
Time = Annotated[str, typer.Option(help="length of the search: 90s, 10m, 2h")]
Runtimes = Annotated[str, typer.Option(help="comma separated; all that are installed when left out")]
Out = Annotated[Path, typer.Option(help="folder for the results")]
Resume = Annotated[bool, typer.Option("--resume", help="continue the study in the output folder")]
Seed = Annotated[int, typer.Option(min=0, help="splits, order of samples, everything random")]


@app.command()
def demo(
    max_drop: MaxDrop = "1%",
    time: Time = "10m",
    runtimes: Runtimes = "",
    out: Out = Path("runs/demo"),
    resume: Resume = False,
    seed: Seed = 0,
) -> None:
    """The main job on the bundled network and data: a residual CNN for Fashion-MNIST."""
    from slimline.demo.job import JOB

    optimize(str(JOB), max_drop=max_drop, time=time, runtimes=runtimes, out=out, resume=resume, seed=seed)


@app.command()
def optimize(
    source: Source,
    data: Data = None,
    score: ScoreName = "",
    max_drop: MaxDrop = "1%",
    minimize: Minimize = "latency",
    max_latency: Annotated[str, typer.Option(help="such as 2ms")] = "",
    max_size: Annotated[str, typer.Option(help="such as 1MB")] = "",
    min_speedup: Annotated[float, typer.Option(help="against the original in its best runtime; 0 for none")] = 0.0,
    time: Time = "10m",
    runtimes: Runtimes = "",
    out: Out = Path("runs/optimize"),
    resume: Resume = False,
    seed: Seed = 0,
    synthetic: Synthetic = False,
    tracker: Tracker = "",
    allow_code: AllowCode = False,
) -> None:
    """Find the fastest or smallest version inside the budget; write the file and the evidence."""
    from slimline.report.certificate import Certificate
    from slimline.report.console import Console, final_table
    from slimline.report.run_folder import optimize as run
    from slimline.search.budget import BYTES, MILLISECONDS, SECONDS, Budget, parse_drop, parse_quantity
    from slimline.search.optimize import Settings

    budget = Budget(
        max_drop=parse_drop(max_drop),
        minimize=minimize,
        max_latency_ms=parse_quantity(max_latency, MILLISECONDS, "--max-latency", "2ms") if max_latency else None,
        max_size_bytes=int(parse_quantity(max_size, BYTES, "--max-size", "1MB")) if max_size else None,
        min_speedup=min_speedup or None,
        time_s=parse_quantity(time, SECONDS, "--time", "10m"),
    )
    names = tuple(n.strip() for n in runtimes.split(",") if n.strip())
    try:
        with Console(budget.time_s) as console:
            settings = Settings(out, names, seed, resume, allow_code, tracker)
            result = run(source, task=_task(data, score, synthetic), budget=budget, settings=settings, listener=console)
    except KeyboardInterrupt as stop:
        typer.echo("slimline: stopped before there was anything to keep.", err=True)
        raise typer.Exit(STOPPED) from stop
    final_table(Certificate.read(out / "certificate.json"))
    typer.echo(f"{result.path}\n{out / 'report.html'}")
    raise typer.Exit(EXIT[str(result.verdict)])


def _task(data: Path | None, score: str, synthetic: bool = False) -> "Task | None":
    """The task of a data file; None when there is none, since then the job brings its own."""
    from slimline.sources.source import read_data
    from slimline.task import SYNTHETIC, FileArrays, Task

    if data is not None:
        train = SYNTHETIC if synthetic else None
        return Task(validate=FileArrays(read_data(data), str(data)), score=score, train=train)
    if synthetic:
        raise SlimlineError("--synthetic needs --data: in a JOB.py write Task(train='synthetic').")
    if score:
        raise SlimlineError(f"--score {score} needs --data: the task() of a JOB.py names its own score.")
    return None


@app.command()
def apply(
    recipe: Annotated[Path, typer.Argument(help="a YAML list of methods, such as the recipe.yaml of a run")],
    source: Source,
    out: Annotated[Path, typer.Option(help="file to write: .slim or .onnx")],
    data: Data = None,
    score: ScoreName = "",
    synthetic: Synthetic = False,
    tracker: Tracker = "",
    allow_code: AllowCode = False,
) -> None:
    """A recipe without a search; with torchrun or accelerate launch on as many processes as they start."""
    from slimline.report.apply import apply_recipe
    from slimline.report.console import Console, applied_table
    from slimline.search.listener import Silent
    from slimline.training.engine import processes

    task = _task(data, score, synthetic)
    try:
        if processes()[0] > 0:
            apply_recipe(recipe, source, out, task, Silent(), allow_code=allow_code)
            return
        with Console() as console:
            applied = apply_recipe(recipe, source, out, task, console, tracker, allow_code)
    except KeyboardInterrupt as stop:
        typer.echo("slimline: stopped; the same command goes on from the last checkpoint.", err=True)
        raise typer.Exit(STOPPED) from stop
    assert applied is not None
    applied_table(applied)


@app.command()
def inspect(source: Source, data: Data = None, score: ScoreName = "", allow_code: AllowCode = False) -> None:
    """Layers: MACs, bytes, what can be done to each, and why not; with data also what the score would be."""
    from rich.console import Console
    from rich.table import Table

    from slimline.methods.prune.filters import channel_axes
    from slimline.network.axes import axis_groups
    from slimline.network.cost import layers
    from slimline.sources.source import Job, load, read_source

    task = _task(data, score)
    job = Job(load(source, None, allow_code), None) if task is None else read_source(source, task, None, allow_code)
    network = job.network
    found = axis_groups(network)
    total = sum(layer.macs for layer in layers(network)) or 1
    table = Table("layer", "kind", "weight", "MACs", "share", "bytes", "channels", "left alone because")
    written = channel_axes(network)
    for layer in layers(network):
        place = layer.weight, written.get(layer.weight, 0)
        groups = [f"{g.name} ({g.described})" for g in found.groups if place in g.slices]
        reasons = [f"axis {axis}: {why}" for (name, axis), why in found.frozen.items() if name == layer.weight]
        table.add_row(
            layer.name, layer.kind, "x".join(map(str, layer.weight_shape)), f"{layer.macs:,}",
            f"{layer.macs / total:.1%}",
            f"{layer.bytes:,}", ", ".join(groups) or "-", "; ".join(reasons) or "-",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(
        f"{total:,} MACs per sample, {network.parameter_count():,} parameters, {len(found.groups)} groups of channels"
    )
    if job.task is not None and job.task.output is not None:
        console.print(
            f"{len(job.task.validate):,} samples; output '{job.task.output.name}': {job.task.output.why}; "
            f"score: {job.task.describe_score()}",
            markup=False,
        )


@app.command()
def measure(
    artifacts: Annotated[list[str], typer.Argument(help="ONNX or .slim files; name a runtime as FILE@openvino[bf16]")],
    data: Annotated[
        Path | None, typer.Option(help="npz with one array per input name; else the network's own example")
    ] = None,
) -> None:
    """Paired latency, size and memory of artifacts, the first one as the baseline."""
    from slimline.report.side_by_side import compare_files

    compare_files(artifacts, data)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="the folder of a finished run")]) -> None:
    """Measure again and check a certificate on this machine."""
    from slimline.report.side_by_side import recheck_folder

    raise typer.Exit(0 if recheck_folder(folder) else EXIT["FAIL"])


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="the folder of a finished run")]) -> None:
    """Write report.html again from certificate.json."""
    from slimline.report.certificate import Certificate
    from slimline.report.html import write_report

    write_report(Certificate.read(folder / "certificate.json"), folder / "report.html")
    typer.echo(folder / "report.html")


def main() -> None:
    """Run a command; whatever the user can mend is one sentence and exit code 2."""
    try:
        app()
    except SlimlineError as error:
        sentence = " ".join(
            line.strip() for line in str(error).splitlines()
        )  # what user code raised may have many lines
        typer.echo(f"slimline: {sentence}", err=True)
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
