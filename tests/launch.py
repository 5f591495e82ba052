# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Scripts in processes of their own, as users start them, without each importing PyTorch and the
frameworks anew: they are forked from one that has.
"""

import atexit
import contextlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def launch(script, *args, env=(), cwd=ROOT):
    """Run a script to its end, by one thread.

    Args:
        script: File.
        *args: Of its command line.
        env: Variables beside those of this process; ``PYTHONPATH`` is searched first.
        cwd: Where it runs.
    """
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, name)) for name in ('out', 'err')]
        task = dict(
            argv=[str(script), *map(str, args)],
            env={**os.environ, 'OMP_NUM_THREADS': '1', **dict(env)},
            cwd=str(cwd),
            files=files,
        )
        server.stdin.write(json.dumps(task) + '\n')
        server.stdin.flush()
        code = int(server.stdout.readline())
        out, err = (Path(file).read_text() for file in files)
    return subprocess.CompletedProcess(task['argv'], code, out, err)


@cache
def _server():
    server = subprocess.Popen(
        [sys.executable, '-m', 'tests.launch'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Read when PyTorch is imported.
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    atexit.register(server.kill)
    return server


def serve():
    """Fork a child for each task that comes in, and answer with its exit code."""
    with contextlib.redirect_stdout(sys.stderr):
        for name in ('mmfeataug.registry', 'mmdet.apis', 'mmseg.apis', 'mmfeataug.visualization'):
            import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(argv, env, cwd, files):
    """Run the script as ``__main__``; does not return."""
    code = 1
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    try:
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        sys.argv = argv
        sys.path[:0] = [str(Path(argv[0]).parent), *env.get('PYTHONPATH', '').split(os.pathsep)]
        runpy.run_path(argv[0], run_name='__main__')
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == '__main__':
    serve()
