"""Owns what attempts at models cost, in money and electricity, and budgets. Does not ask models."""

from ai_lab.costs.prices import Price
from ai_lab.costs.schemas import Attempted, Charge
from ai_lab.costs.service import Costs

__all__ = ["Attempted", "Charge", "Costs", "Price"]
