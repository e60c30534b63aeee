"""Add modalities to a finished bundle: `mla-serve train --extend BUNDLE`.

plan   read and check the bundle and the table
head   the head of the bundle, and the training of encoders against it
fit    the parameters of the added modalities; nothing of the bundle changes
"""
