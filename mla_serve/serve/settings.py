"""The operator's settings: MLA_* environment variables. Every one is checked before a worker starts."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

import mla_serve
from mla_serve.bundle.runtime import DEVICES, cores, cuda_is_there, providers_of
from mla_serve.errors import ConfigError
from mla_serve.inputs import Input

log = logging.getLogger("mla_serve")
PREFIX = "MLA_"
ENV_FILE = PREFIX + "ENV_FILE"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """What the operator decides. Each field is read from MLA_ and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=None, env_parse_none_str="null", extra="forbid", frozen=True, validate_default=True
    )

    model: Path = Field(default=Path("models/digits"), description="Folder of the bundle to serve.")
    workers: Count | None = Field(
        default=None, description="Worker processes; unset means one per processor core, or one in all on a GPU."
    )
    threads: Count | None = Field(
        default=None,
        description="Threads that run one graph (onnxruntime's intra-op); unset means the worker's share of the cores.",
    )
    spin: bool = Field(
        default=False,
        description="Let the threads of a graph wait busily between two runs, which is faster on a machine with idle cores.",
    )
    batch: str = Field(
        default="auto",
        description="Requests that one run of a modality's graph may take together (one window of sound each): off, a number, or "
        "such as image=8,text=16; auto is off on the CPU, where it gains nothing, and 32 on CUDA.",
    )
    device: str = Field(
        default="auto",
        description="Where graphs run: cpu, cuda, or another provider of onnxruntime by name where its package is installed "
        "in place of onnxruntime: openvino with onnxruntime-openvino; auto takes CUDA when onnxruntime-gpu and an NVIDIA "
        "device are there, else the CPU.",
    )
    max_body_bytes: Count = Field(default=10 * 2**20, description="Largest body of a request, but for /predict/batch.")
    max_batch_body_bytes: Count = Field(default=64 * 2**20, description="Largest body of a request to /predict/batch.")
    max_batch_items: Count = Field(default=64, description="Most samples in one request to /predict/batch.")
    max_pixels: Count | None = Field(
        default=None,
        description="Most pixels of a JPEG. Half as many for images that are decoded at full size: other formats, long thin "
        "JPEGs, and all images that a pretrained encoder reads. Unset: the bundle's own limit.",
    )
    max_seconds: Seconds | None = Field(
        default=None, description="Longest recording in seconds; unset leaves the bundle's own limit."
    )
    max_characters: Count | None = Field(
        default=None, description="Texts are cut to so many characters; unset leaves the bundle's own limit."
    )
    request_timeout_s: Seconds = Field(
        default=30.0,
        description="Seconds from the first byte of a request to its answer; later ones are dropped with 504.",
    )
    max_part_bytes: Count = Field(
        default=10 * 2**20, description="Largest part of a form, and largest file in JSON, when it is decoded."
    )
    max_json_values: Count = Field(
        default=2_000_000, description="Most values in a JSON body; each costs memory before it is read."
    )
    max_decode_s: Seconds = Field(
        default=10.0, description="Processor seconds that decoding may take in one request; what is left is refused."
    )
    max_url_bytes: Count = Field(default=8 * 2**10, description="Longest URL.")
    max_headers: Count = Field(default=100, description="Most header lines of a request.")
    max_header_bytes: Count = Field(default=32 * 2**10, description="Largest head of a request: its URL and headers.")
    header_timeout_s: Seconds = Field(
        default=10.0,
        description="Seconds in which a connection must send the head of a request, and take something of an answer.",
    )
    max_connections: Count = Field(
        default=2_000, description="Most connections of one worker; beyond, those that have idled longest are closed."
    )
    max_queue: Count = Field(
        default=64, description="Most requests that wait for a thread in one worker; beyond, 503 with Retry-After."
    )
    max_held_bytes: Count = Field(
        default=512 * 2**20,
        description="Most memory that bodies take in one worker, four times the bytes of a form and eight times those of JSON; "
        "beyond, 503.",
    )
    drain_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1.0,
        description="Seconds between SIGTERM, when /readyz turns false, and the end of accepting connections.",
    )
    stuck_s: Seconds = Field(
        default=60.0, description="Seconds after which a worker whose thread has not come back is replaced."
    )
    model_poll_s: Seconds | None = Field(
        default=5.0, description="Seconds between looks at MLA_MODEL for a new bundle; null never looks again."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of API keys, one per line, read again every second; while it cannot be used nobody is let in, unset "
        "lets everybody in.",
    )
    cors_origins: str = Field(
        default="", description="Origins whose pages may call the service, separated by commas; * is any."
    )
    access_log: bool = Field(default=False, description="Log one line per request.")
    log_format: Literal["text", "json"] = Field(
        default="text", description="How the log is written; json is one object per line."
    )

    @field_validator("model")
    @classmethod
    def _find(cls, model: Path) -> Path:
        """Look here, then beside the package: BentoML changes folders while it starts a Bento."""
        folders = Path.cwd(), Path(mla_serve.__file__).absolute().parents[1]
        return next((folder / model for folder in folders if (folder / model).exists()), model)

    @property
    def providers(self) -> Sequence[str]:
        """onnxruntime's names for the device, in order of preference."""
        if self.device == "auto":
            return DEVICES["cuda" if self.uses_gpu else "cpu"]
        return providers_of(self.device)

    @property
    def processes(self) -> int:
        """How many workers there are."""
        return self.workers or (1 if self.uses_gpu else cores())

    @property
    def graph_threads(self) -> int:
        """How many threads run one graph."""
        return self.threads or max(1, cores() // self.processes)

    @property
    def uses_gpu(self) -> bool:
        """Whether graphs shall run on CUDA."""
        if self.device == "auto":
            return cuda_is_there()
        return DEVICES["cuda"][0] in self.providers  # whichever of its names was given

    @property
    def input_limits(self) -> dict[str, Any]:
        """The limits on inputs that are set, by the name of the input's field."""
        limits = {name: getattr(self, name) for name in ("max_pixels", "max_seconds", "max_characters")}
        return {name: value for name, value in limits.items() if value is not None}

    def limit(self, reader: Input) -> Input:
        """Put the operator's limits in place of the bundle's on one input."""
        fields = {field.name for field in dataclasses.fields(reader)}
        changes = {name: value for name, value in self.input_limits.items() if name in fields}
        return dataclasses.replace(reader, **changes) if changes else reader


def load_settings() -> Settings:
    """Read the settings from the environment, and what it does not set from the file that MLA_ENV_FILE names.

    Raises: ConfigError, naming the variable, for a value that cannot be used.
    """
    file = os.environ.get(ENV_FILE)
    if file and not Path(file).is_file():
        raise ConfigError(f"{ENV_FILE}={file!r}: no such file; mla-serve tune --write FILE writes one")
    try:
        settings = Settings(_env_file=file or None)  # type: ignore[call-arg]  # pydantic-settings takes it
        _ = settings.providers
        return settings
    except ConfigError as error:
        raise ConfigError(f"{PREFIX}DEVICE={error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"][:1]).upper()
        if first["type"] == "extra_forbidden":  # the environment is not asked for those
            raise ConfigError(f"{ENV_FILE}={file!r}: {name} is no setting; correct or remove it") from None
        raise ConfigError(f"{PREFIX}{name}={first['input']!r}: {first['msg']}; correct it or unset it") from None


def warn_of_unknown(environment: Mapping[str, str]) -> None:
    """Log a warning for each MLA_* variable that is no setting, with the nearest that is.

    They are no error because Kubernetes adds such variables for a service that is called mla-something.
    """
    known = [*(PREFIX + name.upper() for name in Settings.model_fields), ENV_FILE]
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            log.warning("the environment variable %a is no setting and has no effect; %s", name, advice)
