"""What checks hpjax's annotations while its tests run: shapes, dtypes and plain types."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as type checkers have it
