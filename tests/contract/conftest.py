from tests.contract.people import people

__all__ = ["people"]
