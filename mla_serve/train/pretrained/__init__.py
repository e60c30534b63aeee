"""Pretrained encoders: any transformers model that reads images, sounds or texts, frozen, fine-tuned or by LoRA.

Its preprocessing is read from its own configuration. What decodes goes into the input, which serving shares; what
computes goes into the encoder, and so into the graph; both are held against the transformers processor on real samples
before anything is trained. Only this package imports transformers and peft, and only when it is used.
"""

PREFIX = "hf:"
"""Marks a pretrained encoder where encoders are named: text=hf:NAME_OR_FOLDER."""
TUNES = ("frozen", "lora", "full")
"""What training may do to the weights, the cautious first."""
