"""Open files of pictures and sound safely: which format, how costly, cut off or whole."""
