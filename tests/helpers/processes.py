"""Python processes for tests without the seconds that importing torch and transformers takes each time.

    done = python("-m", "memtax", "score", ...)                  # as subprocess.run([sys.executable, "-m", "memtax", ...])
    done = torchrun("-m", "memtax", "score", ...)                # two processes, as torchrun starts them

Each is a process of its own: its environment, its arguments, its `__main__`, its exit status. It is forked from a server that
has imported the libraries, one per process of pytest, and nothing of memtax. Processes whose environment names another Hub than
this one are forked from a server that imported in that environment what reads those variables.
"""

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
NEUTRAL = (
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "pyarrow.dataset",
    "scipy.optimize",
    "scipy.stats",
    "numba",
    "torch",
    "torch._dynamo",
    "torch.distributed.tensor",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.export",
    "sklearn.linear_model",
    "typer.testing",
    "rich.progress",
    "yaml",
    "jinja2",
    "httpx",
    "fsspec",
    "multiprocess",
    "xxhash",
    "pydantic",
    "aiohttp",
    "numba.typed",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "statsmodels.api",
)
"""Libraries that read no variable of the Hub."""
READERS = (
    "datasets",
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.gpt_neox.modeling_gpt_neox",
    "peft",
    "accelerate",
    "evaluate",
)
"""Libraries that read the Hub's variables when they are imported."""
FIXED = ("HF_", "HUGGING", "NUMBA_", "TRANSFORMERS_", "XDG_", "HOME")
"""Variables that count when libraries are imported, except `HF_TOKEN`, which is read at every request."""

LATE = "MEMTAX_TESTS_LATE"
"""Variable of a process that sets such variables itself before it imports the libraries that read them."""


class Process:
    """A process that runs; `wait` gives what `subprocess.run` gives."""

    def __init__(self, arguments, environment, cwd):
        self.args = [sys.executable, *map(str, arguments)]
        self._output, self._error = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self._status, theirs = os.pipe()
        request = {"arguments": self.args[1:], "environment": environment, "cwd": str(cwd or os.getcwd())}
        handles = [self._output.fileno(), self._error.fileno(), theirs]
        with tempfile.TemporaryFile() as body:
            body.write(json.dumps(request).encode())
            body.flush()
            _send(_server(environment), [body.fileno(), *handles])
        os.close(theirs)
        self._lines = os.fdopen(self._status, "rb")
        self.pid = int(self._lines.readline())

    def is_running(self):
        """Whether it has not ended."""
        return not select.select([self._lines], [], [], 0)[0]

    def kill(self, number=signal.SIGKILL):
        """Send a signal to the process and those that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, timeout=600):
        """Exit status and what was printed, as `subprocess.CompletedProcess`; killed after `timeout` seconds."""
        ready = select.select([self._lines], [], [], timeout)[0]
        if not ready:
            self.kill()
        status = self._lines.readline()
        self._lines.close()
        printed = []
        for handle in (self._output, self._error):
            handle.seek(0)
            printed.append(handle.read().decode(errors="replace"))
            handle.close()
        if not ready:
            raise subprocess.TimeoutExpired(self.args, timeout, *printed)
        return subprocess.CompletedProcess(self.args, int(status), *printed)


def plain():
    """The environment of processes for which none is given: this one, the tree's modules and helpers, and one thread."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}


def start(*arguments, env=None, cwd=None):
    """Start `python ARGUMENTS`: `-m MODULE ...`, `-c CODE ...` or `SCRIPT ...`."""
    return Process(arguments, plain() if env is None else dict(env), cwd)


def python(*arguments, env=None, cwd=None, timeout=600):
    """Run `python ARGUMENTS` to its end."""
    return start(*arguments, env=env, cwd=cwd).wait(timeout)


def torchrun(*arguments, processes=2, env=None, cwd=None, timeout=600, cards=True):
    """Run `python ARGUMENTS` in so many processes that find each other as those of `torchrun --standalone` do.

    With `cards=False` they see no GPU: a Trainer's processes cannot share one, as those of memtax do.

    Returns:
        What all printed, one after the other, and the status of the first that failed.
    """
    given = plain() if env is None else env
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**given, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    if not (cards and torch.cuda.is_available()):
        common |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    common |= {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "tests",
    }
    started = [
        start(*arguments, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=cwd) for rank in range(processes)
    ]
    until, done = time.monotonic() + timeout, []
    for process in started:
        try:
            done.append(process.wait(max(1.0, until - time.monotonic())))
        except subprocess.TimeoutExpired:
            for other in started:
                other.kill()
            raise
        if done[-1].returncode:
            for other in started:
                other.kill()
    status = next((each.returncode for each in done if each.returncode), 0)
    printed = ("".join(each.stdout for each in done), "".join(each.stderr for each in done))
    return subprocess.CompletedProcess(started[0].args, status, *printed)


_servers: dict[tuple, socket.socket] = {}


def _server(environment):
    """The socket of the server that has imported the libraries in such an environment; of others than this one, one is kept."""
    ours = _fixed(os.environ)
    key = _fixed(environment)
    if () not in _servers:
        _servers[()], theirs = socket.socketpair()
        command = [sys.executable, str(HERE), str(theirs.fileno())]
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**kept, "OMP_NUM_THREADS": "1"})
        theirs.close()
    if environment.get(LATE):
        return _servers[()]
    if key not in _servers:
        for other in [other for other in _servers if other not in ((), ours)]:
            _servers.pop(other).close()
        _servers[key], theirs = socket.socketpair()
        with tempfile.TemporaryFile() as body:
            body.write(json.dumps(dict(key)).encode())
            body.flush()
            _send(_servers[()], [theirs.fileno(), body.fileno()])
        theirs.close()
    return _servers[key]


def _fixed(environment):
    return tuple(sorted(pair for pair in environment.items() if pair[0].startswith(FIXED) and pair[0] != "HF_TOKEN"))


def _send(channel, handles):
    channel.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))])


def _serve(channel, modules):
    """Fork a process per request, until the process of pytest is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in modules:
        with contextlib.suppress(ModuleNotFoundError):  # an extra, or what only some versions of the libraries need
            importlib.import_module(name)
    # What is imported stays: no collection has to look at it.
    gc.freeze()
    while True:
        received, handles, _, _ = socket.recv_fds(channel, 1, 4)
        if not received:
            os._exit(0)
        if os.fork() == 0:
            channel.close()
            if len(handles) == 2:
                _take_environment(handles[1])
                _serve(socket.socket(fileno=handles[0]), READERS)
            _wait_for_child(*handles)
        for handle in handles:
            os.close(handle)


def _take_environment(body):
    """Replace the variables that count when libraries are imported."""
    with os.fdopen(body, "rb") as file:
        file.seek(0)
        given = json.load(file)
    for name in [name for name in os.environ if name.startswith(FIXED)]:
        del os.environ[name]
    os.environ.update(given)


def _wait_for_child(body, output, error, status):
    """Run the request in a child of this process; report its number, then its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(status)
        os.setsid()
        with os.fdopen(body, "rb") as file:
            file.seek(0)
            request = json.load(file)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, handle in enumerate((nothing, output, error)):
            os.dup2(handle, number)
            os.close(handle)
        _become(**request)
    os.write(status, f"{child}\n".encode())
    ended = os.waitpid(child, 0)[1]
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    if log := os.environ.get("MEMTAX_TESTS_CPU"):
        with open(log, "a") as handle:
            handle.write(f"{usage.ru_utime + usage.ru_stime:.2f}\n")
    os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def _become(arguments, environment, cwd):
    """Be `python ARGUMENTS`."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        tempfile.tempdir = None
        # What Python and numba read when they start.
        sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
        sys.modules["numba.core.config"].reload_config()
        sys.path[:] = [path for path in sys.path if path not in ("", str(HERE.parent))]
        given = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:0] = given
        for path in given:
            if (custom := Path(path) / "sitecustomize.py").exists():
                runpy.run_path(str(custom))
        code = _execute(arguments)
    except SystemExit as ended:
        if ended.code is not None and not isinstance(ended.code, int):
            sys.stderr.write(f"{ended.code}\n")
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 255)


def _execute(arguments):
    first, *rest = arguments
    if first == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        import types

        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.path.insert(0, str(Path(first).resolve().parent))
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.path.remove(str(HERE.parent))
    _serve(socket.socket(fileno=int(sys.argv[1])), NEUTRAL)
