"""`python -m splat_esd` is `splat-esd`."""

from splat_esd.cli import run

if __name__ == "__main__":
    run()
