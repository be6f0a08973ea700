"""`requirements/install run|test|cluster|lock`, which make calls."""

import argparse
import os
import sys

from requirements.setup.builds import NAMES, Build, as_build, build_for, lock_hash
from requirements.setup.choose import DEMO, Choice, choose, require_embedkit
from requirements.setup.create import make_cluster_environment, make_demo_environment
from requirements.setup.environment import ROOT
from requirements.setup.make_lock import make_lock
from requirements.setup.messages import FAILURE, SetUpError, say


def main(arguments: list[str]) -> int:
    """Do one command. Returns the exit code, or becomes the command that runs in the environment."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "cluster":
            _run_on_cluster(options)
        elif options.command == "lock":
            make_lock()
        else:
            make_demo_environment(DEMO, for_tests=options.command == "test")
    except SetUpError as error:
        say(f"set-up: {error}")
        return error.code
    except OSError as error:
        say(f"set-up: {error}; the same command continues")
        return FAILURE
    except KeyboardInterrupt:
        say("set-up: interrupted; the same command continues")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="requirements/install", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="put the CPU build into .venv")
    commands.add_parser("test", help="the same, with the tools of the tests")
    commands.add_parser("lock", help="make the locks, requirements/*.txt, again")
    cluster = commands.add_parser("cluster", help="run embedkit in the environment for the cluster, made if need be")
    cluster.add_argument("--venv", default="", help="its folder, instead of the active one or .venv-cluster")
    cluster.add_argument("--profile", default="", help="decides which build is installed if there is none")
    cluster.add_argument("--demo-is-enough", action="store_true", help="take .venv if there is no other")
    cluster.add_argument("arguments", nargs="+", help="of embedkit, after --")
    return parser


def _run_on_cluster(options: argparse.Namespace) -> None:
    """Choose the environment, make it if there is none, and run embedkit in it."""
    choice = choose(os.environ, venv=options.venv, profile=options.profile, demo_is_enough=options.demo_is_enough)
    environment = choice.environment
    if choice.may_be_made and (environment.is_half_made or not environment.exists):
        make_cluster_environment(environment, _build_to_make(choice, options.profile))
    require_embedkit(choice, options.profile)
    _note_differences(choice, options.profile)
    say(f"environment: {environment.path} ({choice.why})")
    command = environment.path / "bin" / "embedkit"
    os.execv(command, [str(command), *options.arguments])  # noqa: S606  no shell is wanted


def _build_to_make(choice: Choice, profile: str) -> Build:
    if profile:
        return build_for(profile)
    begun = as_build(choice.environment.build)
    if begun:
        return begun
    demo = " (VENV=.venv uses the demo's, which has the CPU build)" if DEMO.exists else ""
    raise SetUpError(
        f"there is no environment for the cluster yet ({choice.environment.path})\n"
        "name your profile, so that the right build is installed: type the same command with PROFILE=mysite.toml\n"
        f"or activate an environment that has embedkit, or name its folder with VENV={demo}"
    )


def _note_differences(choice: Choice, profile: str) -> None:
    """Say if an environment of our own is older than the lock, or has the other build. Jobs may use it, so it stays."""
    path, build = choice.environment.path, as_build(choice.environment.build)
    another = f"for a new one beside it: type the same command with VENV={path.name}-2"
    if build and profile and build_for(profile) != build:
        say(f"note: {path} has the {NAMES[build]}; {profile} needs the {NAMES[build_for(profile)]}; {another}")
    elif build and choice.environment.installed_hash != lock_hash(build):
        say(f"note: {path} is older than the lock of this clone; jobs may be using it, so it stays as it is; {another}")


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
