"""From files to `Dataset`, `Split` and `Examples`."""
