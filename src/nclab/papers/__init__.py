"""The wings: one package a paper. The core never imports one by name; it finds them by a scan of this package."""
