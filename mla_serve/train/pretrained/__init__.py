"""Pretrained encoders: transformers models of images, sounds or texts; frozen, fine-tuned, or fine-tuned by LoRA.

The preprocessing is read from the model's own configuration. Decoding becomes the input, which serving uses too. Numeric
steps become a part of the encoder, and so of the graph. Both are compared with the transformers processor on real samples
before training begins. Only this package imports transformers and peft, and only when it is used.

load         load a model and its preprocessing, and refuse what cannot be used
source       find and load the weights
processors   read the processor: the input that decodes, and the settings of the front
fronts       the numeric part of the preprocessing, as torch modules
backbone     front, transformers model and pooling: windows to one vector
check        compare input, front and features with the processor
encoders     the encoders that strategies train
settings     what rebuilds an encoder without the folder it came from
"""

PREFIX = "hf:"
"""Marks a pretrained encoder where encoders are named: text=hf:NAME_OR_FOLDER."""
TUNES = ("frozen", "lora", "full")
"""How the pretrained weights are trained, the default first."""
