"""python -m smartdiet api | worker | selfcheck"""

import argparse

from .settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="smartdiet")
    commands = parser.add_subparsers(dest="command", required=True)
    api = commands.add_parser("api", help="serve the API")
    api.add_argument("--host", default="127.0.0.1")
    api.add_argument("--port", type=int, default=8000)
    worker = commands.add_parser("worker", help="make the plans that were asked for")
    worker.add_argument("--once", action="store_true", help="end when none waits")
    commands.add_parser("selfcheck", help="exercise API and worker in this process")
    args = parser.parse_args()

    if args.command == "api":
        import uvicorn

        from .api import make_app

        uvicorn.run(make_app(Settings()), host=args.host, port=args.port)
    elif args.command == "worker":
        from .worker import run

        run(Settings(), once=args.once)
    else:
        from rich.console import Console

        from .selfcheck import run as check

        Console(width=200).print(check(), highlight=False)


if __name__ == "__main__":
    main()
