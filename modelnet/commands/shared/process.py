"""Start and end the process of a command: streams, limits, signals, one line for a failure, exit codes."""

import errno
import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn, TextIO

import click

from modelnet.runtime.launcher import is_rank
from pipeline.errors import AccessDenied, PipelineError, SourceError, StorageError, WorkerDied
from pipeline.text import command_line, how_to_install

INTERRUPTED, TERMINATED, BUG = 130, 143, 1
MOST_FILES = 2**17
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NO_ROOM = {
    errno.ENOSPC: "Free some space and run it again",
    errno.EDQUOT: "Free some space and run it again",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f) and run it again",
}
_RAISE_LIMIT = "Install it again, or raise the memory limit (ulimit -v)"


class Terminated(BaseException):
    """SIGTERM or SIGHUP came; holds its number."""


class Interrupted(BaseException):
    """Ctrl-C came."""


class Unread(BaseException):
    """Nobody reads the output any more: `| head` has seen enough."""


def run(group: click.Group) -> NoReturn:
    """Run the command line; every failure is one line on stderr and an exit code of `pipeline.errors`."""
    debug = "--debug" in sys.argv  # before or after the name of the command
    open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError):  # a caller may replace the stream by a pipe
                stream.reconfigure(errors="backslashreplace")  # a terminal may be unable to show the name of a class
    os.environ["MPLBACKEND"] = "agg"  # a notebook's backend may not be installed here, and nothing is shown
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # PyTorch's threads: waiting ones leave their cores to others
    for asked in _SIGNALS:
        if signal.getsignal(asked) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(asked, _stop)
    sys.unraisablehook = _remember_signals
    allow_many_files()
    try:
        _run(group, debug)
    except (Interrupted, Terminated) as again:  # a second signal, before the first was told
        _fail_by_signal(again, debug)


def _run(group: click.Group, debug: bool) -> NoReturn:
    try:
        arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
        code = group.main(arguments, command_line(), standalone_mode=False)
        sys.stdout.flush()
        end(code if isinstance(code, int) else 0)
    except SystemExit:
        raise
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else command_line()
        message = error.format_message().rstrip(".")
        if message.startswith("Got unexpected extra argument") and ".h5" in message:
            message += ". Quote a pattern of files, so that the shell leaves it alone: 'NAME-*.h5'"
        fail(f"{message}. See {command} --help", error.exit_code, debug)
    except (click.Abort, Interrupted, Terminated) as stopped:
        _fail_by_signal(stopped, debug)
    except PipelineError as error:
        fail(str(error), error.exit_code, debug)
    except (Unread, BrokenPipeError):
        discard(sys.stdout)
        end(0)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not working_folder_exists():
            fail(
                "the current folder is gone: it was deleted or moved. Change to one that is there",
                SourceError.exit_code,
                debug,
            )
        if (unusable := _unusable_path(error)) is not None:
            fail(str(unusable), unusable.exit_code, debug)
        if error.errno not in _NO_ROOM:
            report_bug(error, debug)
        fail(f"writing failed: {error.strerror}. {_NO_ROOM[error.errno]}", StorageError.exit_code, debug)
    except ImportError as error:  # not installed, or too large for the memory
        missing = isinstance(error, ModuleNotFoundError)
        advice = f"Activate its environment, or install it. {how_to_install()}" if missing else _RAISE_LIMIT
        fail(f"a library that is needed cannot be loaded: {error}. {advice}", WorkerDied.exit_code, debug)
    except Exception as error:
        if theirs := of_own_code(error):
            fail(str(theirs), theirs.exit_code, debug)
        report_bug(error, debug)


def _fail_by_signal(stopped: BaseException, debug: bool) -> NoReturn:
    """Say that a signal has ended the command, and what to do."""
    what, code = "interrupted", INTERRUPTED
    if isinstance(stopped, Terminated):
        number = int(stopped.args[0])
        what, code = "the terminal was closed" if number == signal.SIGHUP else "terminated", 128 + number
    fail(f"{what}. {_run_again()}", code, debug)


def of_own_code(error: Exception) -> PipelineError | None:
    """Return the error that says that a person's own code raised this one; None where it did not."""
    if "modelnet.nets.own" not in sys.modules:
        return None
    from modelnet.nets.own import blame

    return blame(error)


def _run_again() -> str:
    """Say what to do after an interruption: a build continues, other commands begin anew."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    return "Run the same command again" + (" to continue" if words[:1] == ["build-cache"] else "")


def report_bug(error: Exception, debug: bool) -> NoReturn:
    """Say that something went wrong that should have been foreseen."""
    fail(f"this is a bug: {type(error).__name__}: {error}. Run it with --debug and report what it shows", BUG, debug)


def _unusable_path(error: OSError) -> PipelineError | None:
    """Return the error of a path that no command can look at, wherever it was asked for."""
    if not isinstance(error.filename, str | bytes):
        return None
    path, reason = Path(os.fsdecode(error.filename)), (error.strerror or str(error)).lower()
    if isinstance(error, PermissionError):
        return AccessDenied("the path cannot be used", path, reason)
    return (
        SourceError("no such path", path, reason, "Give a shorter one") if error.errno == errno.ENAMETOOLONG else None
    )


def fail(message: str, code: int, debug: bool) -> NoReturn:
    """Say what went wrong in one line and end; of several processes of a training, one says it."""
    if is_rank():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which comes as soon as another rank has ended
        try:
            from modelnet.runtime.ranks import may_speak

            speaks = may_speak(code)
        except Exception:  # torch itself failed, or its import was interrupted
            speaks = code not in (INTERRUPTED, TERMINATED) or os.environ.get("RANK") == "0"
        if not speaks:
            end(code)
    for number in _SIGNALS:  # a second signal: the exit code is that of the first
        signal.signal(number, signal.SIG_IGN)
    if debug:
        import traceback

        traceback.print_exc()
    tell(f"error: {message}", err=True)
    end(code)


def tell(text: object, err: bool = False) -> None:
    """Print a line on stdout or stderr; if nobody reads the stream any more, continue without printing."""
    try:
        click.echo(text, err=err)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):  # a closed pipe or a closed terminal
            raise
        discard(sys.stderr if err else sys.stdout)


def discard(stream: TextIO) -> None:
    """Send later output of a stream to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def end(code: int) -> NoReturn:
    """End the process; as one of several ranks at once, so that the waiting ranks fail too.

    Nor may Python take itself apart there: gloo's threads outlive the process group as long as something holds a
    network that was trained with it, and one that then needs the interpreter aborts the process, now and then.
    """
    if is_rank():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _stop(number: int, _frame: object) -> NoReturn:
    """End the command by an exception; click would print an empty line for a KeyboardInterrupt."""
    raise Interrupted if number == signal.SIGINT else Terminated(number)


_lost: list[BaseException] = []


def _remember_signals(unraisable: "sys.UnraisableHookArgs") -> None:
    """Keep a signal's exception that came where Python can only drop it (a callback of the collector, an import)."""
    if isinstance(unraisable.exc_value, Interrupted | Terminated):
        _lost.append(unraisable.exc_value)
    else:
        sys.__unraisablehook__(unraisable)


def raise_lost_signal() -> None:
    """Raise the exception of a signal that Python has dropped."""
    if _lost:
        raise _lost.pop()


def allow_many_files() -> None:
    """Raise the number of files that this process may have open as far as it may: a shard takes two of often 1,024."""
    import resource

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if most == resource.RLIM_INFINITY else min(most, MOST_FILES)
    if 0 <= now < most:
        with suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def working_folder_exists() -> bool:
    """Whether the folder that the command was typed in is still there."""
    with suppress(FileNotFoundError):
        return Path.cwd().is_dir()
    return False


def open_missing_streams() -> None:
    """Open the null device for each standard stream that the process was started without.

    Else the first file that is opened gets the number of one, and whatever a library prints would go into a cache.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
