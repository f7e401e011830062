"""`antiphon bench`: the options of a load test. What it does is in `antiphon.bench`; how it is run, in `load_testing`.

`antiphon bench URL` needs no subcommand, so the group takes what is not the name of one as the arguments of `run`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from antiphon.commands.aliases import PlainHelpCommand
from antiphon.commands.bench_compare import compare, options_of
from antiphon.commands.bench_flags import translate
from antiphon.commands.bench_results import GOODPUT_HELP, MEAN_LIMIT_HELP, SLO_HELP, report
from antiphon.commands.completion import one_of
from antiphon.errors import ConfigError
from antiphon.terminal import console_on, print_error, print_note

_LOAD, _PROMPTS, _CLIENT = "Load", "Prompts and answers", "Client"
_CHECKS, _LIMITS, _OUTPUT = "Server and checks", "Limits", "Output"
_DEFAULT = "run"
_WRONG_OPTION = 2  # exit status


class BenchGroup(TyperGroup):
    """Subcommands, of which `run` need not be typed. Wrong options are status 2, as with every command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # click's, wherever typer keeps it
        """Put `run` before arguments that name no subcommand."""
        if args and args[0] not in self.commands and not (ctx.resilient_parsing and len(args) == 1):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args or [_DEFAULT, "--help"])

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Report an option whose value is found wrong later as those that the parser finds."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            print_error(error.message)
            raise typer.Exit(_WRONG_OPTION) from None


class RunContext(typer.Context):
    """Leaves `run` out of usage and hints."""

    @property
    def command_path(self) -> str:
        """`antiphon bench`."""
        return super().command_path.removesuffix(f" {_DEFAULT}")


class RunCommand(PlainHelpCommand):
    """`run`, which is used as `antiphon bench URL`."""

    context_class = RunContext

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Translate the flags of other tools; notes on those without effect are printed if the rest is valid."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        args, ignored = translate(args)
        rest = super().parse_args(ctx, args)
        for flag in ignored:
            print_note(console_on(stderr=True), f"{flag} has no effect here")
        return rest

    def format_usage(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Name the address last."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] URL")


bench = typer.Typer(cls=BenchGroup, rich_markup_mode="rich", pretty_exceptions_enable=False)
bench.command(cls=PlainHelpCommand)(report)


@bench.callback()
def bench_group() -> None:
    """Test a server under load: antiphon bench URL."""


@bench.command(name=_DEFAULT, cls=RunCommand)
def run(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Address of a server with OpenAI's API, with or without /v1.")
    ],
    users: Annotated[
        str | None,
        typer.Option(
            "--users",
            "-u",
            "-c",
            "--concurrency",
            "--max-concurrency",
            help="Concurrent users, each sending one request after another: a number, or several, one stage each, as "
            "1,2,4,...,16. With --rate: the maximum number of concurrent requests.",
            rich_help_panel=_LOAD,
            show_default="1",
        ),
    ] = None,
    ramp: Annotated[str | None, typer.Option(help="Add users one by one, as 1..20.", rich_help_panel=_LOAD)] = None,
    ramp_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds until --ramp has added its last user.", rich_help_panel=_LOAD)
    ] = 60.0,
    hold_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds for which all users of --ramp stay.", rich_help_panel=_LOAD)
    ] = 120.0,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            "--request-rate",
            help="Requests per second, sent whether or not earlier ones ended: a number, or several, as 0.5,1,2.",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    arrivals: Annotated[
        str,
        typer.Option(
            help="poisson, gamma or constant: how the requests of --rate are spaced.",
            autocompletion=one_of(("poisson", "gamma", "constant")),
            rich_help_panel=_LOAD,
            show_default="poisson",
        ),
    ] = "",
    burstiness: Annotated[
        float | None,
        typer.Option(help="Shape of the gamma distribution of the intervals; below 1: bursts.", rich_help_panel=_LOAD),
    ] = None,
    requests: Annotated[
        int,
        typer.Option(
            "--requests",
            "-n",
            "--num-prompts",
            "--max-requests",
            min=0,
            help="Number of requests in each stage.",
            rich_help_panel=_LOAD,
            show_default="no limit",
        ),
    ] = 0,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            "-t",
            "--duration",
            "--max-seconds",
            min=0,
            help="Duration of each stage in seconds.",
            rich_help_panel=_LOAD,
            show_default="30 without --requests",
        ),
    ] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="How many times to run all stages.", rich_help_panel=_LOAD)] = 1,
    think_time: Annotated[
        str, typer.Option(help="Seconds that a user waits after an answer, as 2 or 1..5.", rich_help_panel=_LOAD)
    ] = "0",
    warm_up: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds at the beginning of each stage that are left out of the figures.",
            rich_help_panel=_LOAD,
        ),
    ] = 0.0,
    warmups: Annotated[
        int,
        typer.Option(
            "--warmups",
            "--num-warmups",
            min=0,
            help="Requests before the first stage that are not recorded.",
            rich_help_panel=_LOAD,
        ),
    ] = 1,
    drain: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds to wait for unfinished answers at the end of a stage.", rich_help_panel=_LOAD
        ),
    ] = 30.0,
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            "--dataset-path",
            help="chat, documents, shared-prefix, math, or a file: a prompt a line, as text or JSON.",
            autocompletion=one_of(("chat", "documents", "shared-prefix", "math")),
            rich_help_panel=_PROMPTS,
        ),
    ] = "chat",
    input_tokens: Annotated[
        int,
        typer.Option(
            "--input-tokens",
            "--random-input-len",
            "--input-len",
            min=0,
            help="Length of prompts of random words, in tokens; instead of --prompts.",
            rich_help_panel=_PROMPTS,
            show_default=False,
        ),
    ] = 0,
    output_tokens: Annotated[
        int,
        typer.Option(
            "--output-tokens",
            "--random-output-len",
            "--output-len",
            min=0,
            help="Exact number of tokens in each answer, if the server supports ignore_eos.",
            rich_help_panel=_PROMPTS,
            show_default=False,
        ),
    ] = 0,
    max_tokens: Annotated[
        int,
        typer.Option(
            min=0, help="Maximum number of tokens in an answer.", rich_help_panel=_PROMPTS, show_default="the prompts'"
        ),
    ] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature.", rich_help_panel=_PROMPTS)] = 0.0,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed for prompts, arrivals and, if the temperature is above 0, sampling.", rich_help_panel=_PROMPTS
        ),
    ] = 0,
    endpoint: Annotated[
        str,
        typer.Option(
            help="chat or completions.", autocompletion=one_of(("chat", "completions")), rich_help_panel=_PROMPTS
        ),
    ] = "chat",
    stream: Annotated[bool, typer.Option(help="Ask for streamed answers.", rich_help_panel=_PROMPTS)] = True,
    extra_body: Annotated[
        str, typer.Option(help="JSON object of fields to add to each request.", rich_help_panel=_PROMPTS)
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="The model's name.", rich_help_panel=_CLIENT, show_default="the first that is listed"
        ),
    ] = "",
    api_key: Annotated[
        str, typer.Option(envvar="ANTIPHON_API_KEY", help="API key.", rich_help_panel=_CLIENT, show_default=False)
    ] = "",
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", help="HTTP header to send with each request, as 'Name: value'.", rich_help_panel=_CLIENT
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", "-k", help="Do not verify the server's certificate.", rich_help_panel=_CLIENT)
    ] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Certificates to verify the server's certificate with, in PEM.", rich_help_panel=_CLIENT),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for a whole answer.", rich_help_panel=_CLIENT)
    ] = 600.0,
    retries: Annotated[
        str,
        typer.Option(
            help="none, or openai: retry up to twice, as OpenAI's SDKs do.",
            autocompletion=one_of(("none", "openai")),
            rich_help_panel=_CLIENT,
        ),
    ] = "none",
    max_lag: Annotated[
        float,
        typer.Option(
            help="Milliseconds (P99) by which the client itself may lag; beyond that the result is not valid.",
            rich_help_panel=_CLIENT,
        ),
    ] = 20.0,
    metrics_url: Annotated[
        str,
        typer.Option(help="Address of the server's metrics.", rich_help_panel=_CHECKS, show_default="URL/metrics"),
    ] = "",
    pid: Annotated[
        int,
        typer.Option(
            min=0,
            help="Process id of a server on this machine, to record its CPU time and memory, with its children's.",
            rich_help_panel=_CHECKS,
            show_default=False,
        ),
    ] = 0,
    check_same: Annotated[
        bool,
        typer.Option(
            "--check-same",
            help="Afterwards send each request again, one at a time, and compare the answers.",
            rich_help_panel=_CHECKS,
        ),
    ] = False,
    same_requests: Annotated[
        int,
        typer.Option(
            min=0,
            help="Maximum number of requests to send again for --check-same.",
            rich_help_panel=_CHECKS,
            show_default="all",
        ),
    ] = 0,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            help="Others use the server too, so it may count more requests than were sent.",
            rich_help_panel=_CHECKS,
        ),
    ] = False,
    goodput: Annotated[
        list[str] | None, typer.Option(help=GOODPUT_HELP, rich_help_panel=_LIMITS, show_default=False)
    ] = None,
    slo: Annotated[list[str] | None, typer.Option(help=SLO_HELP, rich_help_panel=_LIMITS, show_default=False)] = None,
    mean_limit: Annotated[
        float, typer.Option(min=0, help=MEAN_LIMIT_HELP, rich_help_panel=_LIMITS, show_default=False)
    ] = 0.0,
    find_knee: Annotated[
        bool,
        typer.Option(
            "--find-knee",
            help="Search for the most users for whom --slo is met (default: 'p95 first_token < 2s'), up to --users "
            "(256), or for the highest rate, up to --rate.",
            rich_help_panel=_LOAD,
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the results.", rich_help_panel=_OUTPUT, show_default="bench-<time>"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output.", rich_help_panel=_OUTPUT)
    ] = False,
    name: Annotated[str, typer.Option(help="The server's name in reports.", rich_help_panel=_OUTPUT)] = "",
) -> None:
    """Test a server under load: any server with OpenAI's API.

    "antiphon bench compare" compares two servers, "antiphon bench report" writes the report of a test again.

    Ctrl-C ends the test and keeps the results so far; --resume continues it. The exit status is 1 for errors, 2 for
    wrong options, 3 if a check failed (the server's counters do not match the client's, answers under load differ from
    those alone, or the client lagged) or an objective of --slo was missed, and 130 after Ctrl-C.

    \b
    Examples:
      antiphon bench http://127.0.0.1:8000 --users 8
      antiphon bench 127.0.0.1:8000 --users 1,2,4,...,16 --check-same
      antiphon bench 127.0.0.1:8000 --ramp 1..20 --ramp-seconds 60
      antiphon bench https://host/v1 --rate 2.5 --retries openai
      antiphon bench 127.0.0.1:8000 --find-knee --slo "p95 ttft < 1s"
      antiphon bench 127.0.0.1:8000 --input-tokens 200 --output-tokens 128
    """
    from antiphon.commands.bench_settings import Options
    from antiphon.commands.load_testing import run_load_test

    options = Options(**{name: value for name, value in locals().items() if name in Options.__dataclass_fields__})
    run_load_test(options, console_on(stderr=True))


bench.command(cls=PlainHelpCommand)(options_of(run)(compare))
