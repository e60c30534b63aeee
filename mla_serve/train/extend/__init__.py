"""Add modalities to a finished bundle: `mla-serve train --extend BUNDLE`.

plan   read and check the bundle and the table
head   the head of the bundle, and the training of encoders against it
fit    the parameters of the added modalities; nothing of the bundle changes

Answers without the added modalities stay the same to the bit. The old graphs are copied and the old parameters are held. New
parameters have keys that only patterns with an added modality look up (`pattern_keys` in fusion/formula.py). Weights are
summed in an order in which zeros at the end change nothing (`sum_in_order` there). export/export_extension.py compares the
old and the new answers before it writes the bundle.
"""
