"""Settings: the types that keys have, the files of `conf/` and the command line that fill them."""
