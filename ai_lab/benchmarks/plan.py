"""What is to be measured: the one shape that HTTP, the command line and notebooks share.

A plan says everything that a run depends on besides the machine; running it again with the same seed asks the same.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ai_lab.benchmarks.plan_fields import ApiKey, Options, ServerAddress

MOST_REQUESTS = 100_000
MOST_ARMS = 8
MOST_LEVELS = 16
#: All of a plan's own prompts together; a hundred plans may wait.
_MOST_CHARACTERS = 10_000_000
MOST_OUTPUT_TOKENS = 100_000
LEAST_RATE = 1e-9  # per second; of much lower ones the gaps are no times any more
Protocol = Literal["auto", "ollama", "openai"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)  # true is not 1, and "5" is not 5


class EngineOptions(_Part):
    """How the benchmark's own engine runs an ``embedded`` model; None: as the lab's settings say."""

    threads: int | None = Field(default=None, ge=1, le=1024)
    context_tokens: int | None = Field(default=None, ge=128)
    slots: int | None = Field(default=None, ge=1, le=256, description="Answers written at once.")
    gpu_layers: int | None = Field(default=None, ge=-1)


class Arm(_Part):
    """One thing under test: a model at a place with options. What two arms differ in is what a comparison compares."""

    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="provider/model, or with url that server's own name of the model.",
    )
    url: ServerAddress | None = Field(
        default=None, description="Any server, by address; redirects are not followed. Default: the provider."
    )
    protocol: Protocol = Field(default="auto", description="With url: what it speaks; auto asks it.")
    endpoint: Literal["chat", "generate"] = Field(
        default="chat", description="generate: Ollama's /api/generate, OpenAI's /completions."
    )
    api_key: ApiKey | None = Field(
        default=None, exclude=True, description="With url. Never stored nor shown: a rerun has to be given it."
    )
    name: str | None = Field(default=None, min_length=1, max_length=100, description="How reports call it.")
    options: Options = Field(default_factory=dict, description="Sent as they are: temperature, num_ctx, …")
    engine: EngineOptions | None = Field(default=None, description="For embedded models only.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.url and not self.model:
            raise ValueError("Name the model that the server at url is to run.")
        if self.url and self.engine:
            raise ValueError("engine is for embedded models; leave it out with url.")
        if self.api_key and not self.url:
            raise ValueError("api_key goes with url; a configured provider has its own.")
        return self


class Iterations(_Part):
    """Requests one after the other, or ``concurrency`` at a time; every level is measured apart (a sweep)."""

    mode: Literal["closed"] = "closed"
    requests: int = Field(default=10, ge=1, le=MOST_REQUESTS, description="Per arm and level.")
    concurrency: list[Annotated[int, Field(ge=1, le=1024)]] = Field(default=[1], min_length=1, max_length=MOST_LEVELS)


class OpenLoop(_Part):
    """Requests at their own times, whether the server keeps up or not. Latencies count from the intended time."""

    mode: Literal["open"] = "open"
    requests: int = Field(default=100, ge=1, le=MOST_REQUESTS, description="Per arm and level.")
    rates: list[Annotated[float, Field(ge=LEAST_RATE, le=10_000)]] = Field(
        min_length=1, max_length=MOST_LEVELS
    )  # per second
    arrivals: Literal["constant", "poisson", "gamma"] = "poisson"
    burstiness: float = Field(
        default=1.0, ge=0.01, le=100, description="Gamma's shape: 1 is Poisson, less is burstier."
    )


class Slo(_Part):
    """What a request must keep to count as good; milliseconds, None is no limit. All given ones must hold."""

    ttft_ms: float | None = Field(default=None, gt=0)
    tpot_ms: float | None = Field(default=None, gt=0)
    e2e_ms: float | None = Field(default=None, gt=0)
    share: float = Field(default=0.95, gt=0, lt=1, description="Of the requests that must be good.")

    @model_validator(mode="after")
    def _has_limit(self) -> Self:
        if self.ttft_ms is None and self.tpot_ms is None and self.e2e_ms is None:
            raise ValueError("Give at least one of ttft_ms, tpot_ms, e2e_ms.")
        return self


class GoodputSearch(_Part):
    """Search for the highest Poisson rate at which ``slo`` holds, by doubling and then halving the interval."""

    mode: Literal["goodput"] = "goodput"
    slo: Slo
    start_rate: float = Field(default=0.5, ge=LEAST_RATE, le=10_000)  # requests per second
    most_rate: float = Field(default=1000.0, ge=LEAST_RATE, le=10_000)
    requests: int = Field(
        default=50, ge=10, le=MOST_REQUESTS // 32, description="Per rate that is tried; 32 are tried at most."
    )
    precision: float = Field(default=0.1, gt=0.01, le=1, description="Stop when the interval is this part of the rate.")


Load = Annotated[Iterations | OpenLoop | GoodputSearch, Field(discriminator="mode")]


class Prompts(_Part):
    """What is asked.

    unique: every request begins with a number of its own, so that no prefix cache helps; shared_prefix: the first
    ``shared_tokens`` tokens are the same; repeat: one and the same prompt, to see what the cache is worth.
    """

    mode: Literal["unique", "shared_prefix", "repeat"] = "unique"
    texts: list[Annotated[str, Field(min_length=1, max_length=1_000_000)]] | None = Field(
        default=None, min_length=1, max_length=10_000, description="Your own prompts, taken in turn."
    )
    tokens: int = Field(
        default=128, ge=8, le=1_000_000, description="Length by the server's own count; not for your own texts."
    )
    shared_tokens: int | None = Field(default=None, ge=1)
    keep_exact: bool = Field(default=False, description="Send your texts unchanged, without the number in front.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.shared_tokens is not None) != (self.mode == "shared_prefix"):
            raise ValueError("shared_tokens goes with mode shared_prefix, and that needs it.")
        if self.shared_tokens is not None and self.shared_tokens >= self.tokens:
            raise ValueError("shared_tokens must be less than tokens.")
        if sum(map(len, self.texts or ())) > _MOST_CHARACTERS:
            raise ValueError(f"texts are at most {_MOST_CHARACTERS} characters together; measure fewer at a time.")
        return self


class Plan(_Part):
    """A benchmark: arms, load, prompts, and how careful to be."""

    arms: list[Arm] = Field(default=[Arm()], min_length=1, max_length=MOST_ARMS)
    load: Load = Iterations()
    prompts: Prompts = Prompts()
    output_tokens: int = Field(
        default=64, ge=1, le=MOST_OUTPUT_TOKENS, description="Tokens that every answer should have."
    )
    force_output_length: bool = Field(
        default=True, description="Ask the server to go on to output_tokens (ignore_eos) where it can."
    )
    warmup: int = Field(default=2, ge=0, le=1000, description="Requests per arm before anything counts.")
    cold_loads: int = Field(default=0, ge=0, le=20, description="Times the model is loaded anew and timed, per arm.")
    blocks: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Parts of the run, in random order over the arms. Default: by itself.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of prompts, arrivals and the order of blocks.")
    timeout_seconds: float = Field(default=120, gt=0, le=3600, description="Longest silence of a server.")
    idle_seconds: float = Field(default=2, ge=0, le=60, description="Looking at the idle machine before and after.")
    calibration_seconds: float = Field(default=3, ge=0, le=30, description="Measuring the instrument itself first.")
    equivalence_margin: float = Field(default=0.03, gt=0, lt=1, description="Smaller differences count as none.")
    slo: Slo | None = Field(default=None, description="Report goodput against this.")
    title: str | None = Field(default=None, max_length=200)

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if isinstance(self.load, GoodputSearch):
            if len(self.arms) > 1:
                raise ValueError("A search for the highest rate has one arm; compare the rates of two runs.")
            if self.load.start_rate > self.load.most_rate:
                raise ValueError("start_rate is above most_rate.")
        elif (total := self.load.requests * len(self.levels()) * len(self.arms)) > MOST_REQUESTS:
            raise ValueError(
                f"{total} requests are more than {MOST_REQUESTS} in one run; ask for fewer or several runs."
            )
        names = self.arm_names()
        if len(set(names)) < len(names):
            raise ValueError("Two arms have the same name; give each its own with name.")
        return self

    @classmethod
    def of_earlier(cls, model_name: str | None, prompt: str, iterations: int) -> Plan:
        """Return what ``POST /benchmark/llm`` measures: natural answers to one prompt, one after the other."""
        return cls(
            arms=[Arm(model=model_name)],
            load=Iterations(requests=iterations),
            prompts=Prompts(texts=[prompt]),
            output_tokens=128,
            force_output_length=False,
            warmup=1,
            idle_seconds=0.5,
            calibration_seconds=1,
            title="POST /benchmark/llm",
        )

    def levels(self) -> list[float]:
        """Return the concurrencies or rates that are measured apart; of a search only its first rate."""
        if isinstance(self.load, Iterations):
            return [float(level) for level in self.load.concurrency]
        return list(self.load.rates) if isinstance(self.load, OpenLoop) else [self.load.start_rate]

    def arm_names(self) -> list[str]:
        """Return what reports call the arms: their names, else their models, with what tells them apart."""
        plain = [arm.name or arm.model or "default model" for arm in self.arms]
        return [
            name if arm.name or plain.count(name) == 1 else f"{name} ({_difference(arm)})"
            for name, arm in zip(plain, self.arms, strict=True)
        ]


def _difference(arm: Arm) -> str:
    said = [arm.url or ""]
    said += [f"{name}={value}" for name, value in arm.options.items()]
    said += [
        f"{name}={value}" for name, value in (arm.engine.model_dump(exclude_none=True) if arm.engine else {}).items()
    ]
    return ", ".join(filter(None, said)) or "as set"
