"""Owns stored answers: exact ones and those to questions that say the same. Does not decide what is asked."""

from ai_lab.cache.schemas import CacheKey, Found, StoredAnswer
from ai_lab.cache.service import AnswerCache

__all__ = ["AnswerCache", "CacheKey", "Found", "StoredAnswer"]
