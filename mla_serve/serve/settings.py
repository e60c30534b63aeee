"""The operator's settings: MLA_* environment variables, all checked before a worker starts.

docs/generate.py writes docs/reference/settings.md from the descriptions of the fields.
"""

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
    """The settings. Each field is read from the variable MLA_ and its name in capitals."""

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
        description="Let the threads of a graph busy-wait between two runs: lower latency on a machine with idle cores.",
    )
    batch: str = Field(
        default="auto",
        description="Most windows that one run of a modality's graph takes from several requests (a picture or a text is one window, a "
        "recording one or more): off, a number, or a number per modality such as image=8,text=16; auto is off on the CPU, "
        "where batches gain nothing, and 32 on CUDA.",
    )
    device: str = Field(
        default="auto",
        description="Where graphs run: cpu, cuda, or the name of another provider whose package is installed in place of "
        "onnxruntime, such as openvino with onnxruntime-openvino; auto takes CUDA if onnxruntime-gpu and an NVIDIA device "
        "are found, else the CPU.",
    )
    max_body_bytes: Count = Field(
        default=10 * 2**20, description="Largest body of a request, except to /predict/batch."
    )
    max_batch_body_bytes: Count = Field(default=64 * 2**20, description="Largest body of a request to /predict/batch.")
    max_batch_items: Count = Field(default=64, description="Most samples in one request to /predict/batch.")
    max_pixels: Count | None = Field(
        default=None,
        description="Most pixels of a JPEG. Half as many for images that are decoded at full size: other formats, long thin "
        "JPEGs, and all images that a pretrained encoder reads. Unset: the bundle's own limit.",
    )
    max_seconds: Seconds | None = Field(
        default=None, description="Longest recording in seconds; unset means the bundle's own limit."
    )
    max_characters: Count | None = Field(
        default=None, description="A text is cut after this many characters; unset means the bundle's own limit."
    )
    request_timeout_s: Seconds = Field(
        default=30.0,
        description="Seconds from the first byte of a request to the end of its answer; a request that takes longer gets 504.",
    )
    max_part_bytes: Count = Field(
        default=10 * 2**20, description="Largest part of a form, and largest file in JSON after base64 is decoded."
    )
    max_json_values: Count = Field(
        default=2_000_000, description="Most values in a JSON body; each costs memory as soon as it is parsed."
    )
    max_decode_s: Seconds = Field(
        default=10.0,
        description="Processor seconds that one request may spend on decoding; further files are refused.",
    )
    max_url_bytes: Count = Field(default=8 * 2**10, description="Longest URL.")
    max_headers: Count = Field(default=100, description="Most header lines of a request.")
    max_header_bytes: Count = Field(default=32 * 2**10, description="Largest head of a request: its URL and headers.")
    header_timeout_s: Seconds = Field(
        default=10.0,
        description="Seconds in which a connection must send the URL and headers of a request, and in which it must read some "
        "of an answer.",
    )
    max_connections: Count = Field(
        default=2_000,
        description="Most connections of one worker; beyond, the one that has been idle longest is closed.",
    )
    max_queue: Count = Field(
        default=64,
        description="Most requests that wait for a thread in one worker; further ones get 503 with Retry-After.",
    )
    max_held_bytes: Count = Field(
        default=512 * 2**20,
        description="Most memory in bytes that bodies take in one worker, counted as four times the bytes of a form and eight times "
        "those of any other body; further requests get 503.",
    )
    drain_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1.0,
        description="Seconds between SIGTERM, when /readyz starts to answer 503, and the end of accepting connections.",
    )
    stuck_s: Seconds = Field(
        default=60.0,
        description="Seconds that a thread may work on one request; a worker with a thread that takes longer is replaced.",
    )
    model_poll_s: Seconds | None = Field(
        default=5.0, description="Seconds between two checks of MLA_MODEL for a new bundle; null never checks."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of API keys, one per line, read again every second. While it cannot be used, no key is valid. Unset means "
        "that no key is needed.",
    )
    cors_origins: str = Field(
        default="", description="Origins whose pages may call the service, separated by commas; * means any."
    )
    access_log: bool = Field(default=False, description="Log one line per request.")
    log_format: Literal["text", "json"] = Field(
        default="text", description="Format of the log; json writes one object per line."
    )

    @field_validator("model")
    @classmethod
    def _find(cls, model: Path) -> Path:
        """Look in the current folder, then beside the package: BentoML changes its folder while it starts a Bento."""
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
        """The number of worker processes."""
        return self.workers or (1 if self.uses_gpu else cores())

    @property
    def graph_threads(self) -> int:
        """The number of threads that run one graph."""
        return self.threads or max(1, cores() // self.processes)

    @property
    def uses_gpu(self) -> bool:
        """Whether graphs run on CUDA."""
        if self.device == "auto":
            return cuda_is_there()
        return DEVICES["cuda"][0] in self.providers  # whichever of its names was given

    @property
    def input_limits(self) -> dict[str, Any]:
        """The limits on inputs that are set, by their names in the inputs."""
        limits = {name: getattr(self, name) for name in ("max_pixels", "max_seconds", "max_characters")}
        return {name: value for name, value in limits.items() if value is not None}

    def with_limits(self, reader: Input) -> Input:
        """Return an input with the operator's limits in place of the bundle's."""
        fields = {field.name for field in dataclasses.fields(reader)}
        changes = {name: value for name, value in self.input_limits.items() if name in fields}
        return dataclasses.replace(reader, **changes) if changes else reader


def load_settings() -> Settings:
    """Read the settings from the environment, and those that it does not have from the file that MLA_ENV_FILE names.

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
        if (
            first["type"] == "extra_forbidden"
        ):  # only from the file: other variables of the environment are not looked at
            raise ConfigError(f"{ENV_FILE}={file!r}: {name} is no setting; correct or remove it") from None
        raise ConfigError(f"{PREFIX}{name}={first['input']!r}: {first['msg']}; correct it or unset it") from None


def warn_of_unknown(environment: Mapping[str, str]) -> None:
    """Log a warning for each MLA_* variable that is no setting, with the most similar setting.

    It is no error, because Kubernetes adds such variables for a service whose name begins with mla-.
    """
    known = [*(PREFIX + name.upper() for name in Settings.model_fields), ENV_FILE]
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            log.warning("the environment variable %a is no setting and has no effect; %s", name, advice)
