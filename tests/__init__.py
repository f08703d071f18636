"""Tests. A package, because another one of that name comes with a tool and would be found first."""
