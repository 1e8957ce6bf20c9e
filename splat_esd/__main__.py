"""`python -m splat_esd` is `splat-esd`."""

from splat_esd.cli.main import run

if __name__ == "__main__":
    run()
