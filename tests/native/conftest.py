from tests.native.people import forked, person, table

__all__ = ["forked", "person", "table"]
