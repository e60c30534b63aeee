"""The Python interface: `mla_serve.fit`, `mla_serve.load` and the `Predictor` that both return.

values      one value of a caller -> a value of a row, or a cell of a table
given       one sample, a list, a data frame, an Arrow table or a Hugging Face dataset -> samples, and what is returned for them
columns     a sample by the names of modalities or columns -> its values by modality
answers     answers -> a data frame or an Arrow table
predictor   a bundle that is asked in this process
progress    lines and a progress bar, on a terminal or in a notebook
wording     messages that name flags -> messages that name keywords
tables      a table in memory -> the lines that a table file is read into
fit         a table in memory or in files -> a trained bundle
"""
