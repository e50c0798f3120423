"""One file a format: raw files in, `Dataset` out."""
