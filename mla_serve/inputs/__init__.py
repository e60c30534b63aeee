"""Payload to array: one frozen dataclass per kind of input, used by training and serving alike.

A new kind is a subclass of `Input` and an entry in each of these, which tests/train/test_kinds.py compares:

INPUTS (here), KINDS (table/cells.py), CORRUPTIONS (corrupt.py), CHOOSE (train/inputs.py), ENCODERS (train/encoders),
AUGMENT or AUGMENT_PAYLOAD (train/augment.py), FIELDS and VERBS (serve/web/card.js, app.js), an icon (serve/web/dom.js);
where it is sent as a file, also FILES (sample.py) and the branches of client/payloads.py and export/media.py.
"""

from mla_serve.inputs.audio import AudioInput
from mla_serve.inputs.base import Array, Input, Payload, list_fields
from mla_serve.inputs.image import ImageInput
from mla_serve.inputs.text import TextInput
from mla_serve.inputs.vector import VectorInput

INPUTS: dict[str, type[Input]] = {cls.kind: cls for cls in (ImageInput, AudioInput, TextInput, VectorInput)}

__all__ = ["INPUTS", "Array", "AudioInput", "ImageInput", "Input", "Payload", "TextInput", "VectorInput", "list_fields"]
